package redislock

import (
	"strconv"
	"strings"
	"sync"
)

// reserved begins the name of everything the library keeps in Redis beside the
// lock keys themselves. A lock key may not begin with it.
const reserved = "redislock:"

const (
	// fenceKey holds the fencing tokens of all keys: one counter that never
	// falls serves every key, and needs no clearing away.
	fenceKey = reserved + "fence"

	queueKeys    = reserved + "queue:"
	shortestKeys = reserved + "shortest:"
	skippedKeys  = reserved + "skipped:"

	// probeKey is never there: whoever may not remove it is no master.
	probeKey = reserved + "probe"

	// rivalKeys, followed by the lock key, holds which manager was last refused by
	// a node of a quorum.
	rivalKeys = reserved + "rival:"

	// pollKeys, followed by the lock key, is there while a manager waits for it that
	// hears of no release.
	pollKeys = reserved + "poll:"

	// grantChannel, followed by a manager's id, is the channel on which that
	// manager hears that a waiter of its own has become the holder.
	grantChannel = reserved + "grant:"
)

// keys are the Redis keys of one lock. The side keys hash to the slot of the
// lock key, whatever that is, so that one script may touch them all on a
// Redis Cluster.
type keys struct {
	lock     string // as the caller named it, after the prefix
	queue    string // sorted set: the waiters, by the time they joined
	shortest string // string: the shortest TTL among them, in ms
	skipped  string // sorted set: those that were skipped as dead, by the time they joined
}

func keysOf(lock string) keys {
	side := sideKey("", lock)
	all := queueKeys + side + shortestKeys + side + skippedKeys + side // in one piece of memory
	queue := len(queueKeys) + len(side)
	shortest := queue + len(shortestKeys) + len(side)
	return keys{
		lock:     lock,
		queue:    all[:queue],
		shortest: all[queue:shortest],
		skipped:  all[shortest:],
	}
}

// sideKey returns the side key that begins so.
func sideKey(begin, lock string) string {
	// Redis hashes what stands between the first "{" and the first "}" after
	// it, if anything does, and else the whole key.
	// The three forms begin or end so that no two keys share a side key.
	if hashTag(lock) != lock {
		return begin + ":" + lock // carries a tag of its own
	}
	if strings.Contains(lock, "}") {
		// The brace would end our tag too early: stand in for the slot with a
		// tag that hashes to it, and keep the key behind it as the name.
		return begin + "{" + slotTag(slotOf(lock)) + "}}" + lock
	}
	return begin + "{" + lock + "}"
}

// hashTag returns the part of the key that decides its slot.
func hashTag(key string) string {
	if _, rest, found := strings.Cut(key, "{"); found {
		if tag, _, found := strings.Cut(rest, "}"); found && tag != "" {
			return tag
		}
	}
	return key
}

const slots = 16384

// slotOf returns the Redis Cluster slot of a key (Redis Cluster specification:
// CRC16, XMODEM variant, of the hash tag, modulo 16384).
func slotOf(key string) uint16 {
	return crc16(hashTag(key)) % slots
}

func crc16(s string) uint16 {
	var crc uint16
	for i := range len(s) {
		crc ^= uint16(s[i]) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}

// slotTag returns a short string that hashes to the slot.
func slotTag(slot uint16) string {
	return strconv.Itoa(int(slotTags()[slot]))
}

// slotTags maps each slot to a number whose digits hash to it. Only keys with
// a stray "}" need it, so it is made when the first one comes.
var slotTags = sync.OnceValue(func() *[slots]uint32 {
	var tags [slots]uint32
	for n, left := uint32(1), slots; left > 0; n++ {
		if slot := crc16(strconv.Itoa(int(n))) % slots; tags[slot] == 0 {
			tags[slot] = n
			left--
		}
	}
	return &tags
})
