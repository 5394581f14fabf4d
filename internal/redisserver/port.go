package redisserver

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports lie below those that Linux gives to outgoing connections and to whoever asks
// for just any (net.ipv4.ip_local_port_range), and so do the ports of the cluster
// bus: nothing takes one while its server is down between Kill and Run.
const (
	firstPort = 10_000
	busOffset = 10_000 // of Redis
	lastPort  = 32_767 - busOffset
)

// freeAddr finds a port on which nothing listens, and nothing on its bus port.
func freeAddr() (string, error) {
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		if isFree(port) && isFree(port+busOffset) {
			return fmt.Sprintf("127.0.0.1:%d", port), nil
		}
	}
	return "", errors.New("no free port on 127.0.0.1")
}

func isFree(port int) bool {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	listener.Close()
	return true
}
