// Package simulation runs the library, with the real client, against a Redis in
// memory and a network that misbehaves, in fake time: thousands of histories a
// minute, each decided by a seed. See README.md.
package simulation
