// Package redislock provides fair distributed locks on Redis.
//
// A [LockManager] acquires locks by key. Callers that find a key taken stand in
// one line, over all processes that use the same Redis, and get the lock in the
// order in which they joined:
//
//	manager, err := redislock.NewLockManager(client) // a go-redis client
//	…
//	lock := manager.Lock(ctx, "order:42", 10*time.Second)
//	defer lock.Unlock()
//	if result := lock.Wait(); !result.OK() {
//		return result.Err
//	}
//
// Lock returns at once, Wait when it is the caller's turn or ctx has ended. Unlock
// may be deferred straight away, whatever comes of the acquisition. A release
// makes the next live waiter the holder in the same step; nobody polls.
//
// # Leases
//
// A lock lasts for its TTL and then ends by itself, so that a crashed holder does
// not block others for ever. [WithAutoRenew] prolongs it for as long as the
// process lives, up to a limit; [Lock.Extend] does it by hand. [Lock.Done] and
// [Lock.Err] tell when and why a lock was lost, at the latest when its lease ends
// by the process's own monotonic clock ([Lock.ValidUntil]), whether Redis can be
// reached or not.
//
// # Ending
//
// A service that is told to end calls [LockManager.Shutdown], which waits until all
// locks are released, and has nobody wait for more. [LockManager.Close] ends the
// manager at once, and with it the renewal of locks that are in use.
//
// # Guarantees
//
// At most one caller holds a key at a time, within its lease, over all programs
// that set the key with SET NX PX and delete it after checking its value. Waiters
// are served first come, first served; a process that died is skipped. Every
// waiter is served within a second of the lease before it being over, even if
// every message from Redis is lost. Calls that fail or are cancelled leave
// nothing in Redis.
//
// # Caveats
//
// A process that is paused between checking its lock and writing may write after
// its lease has ended. Have the storage remember the highest [Lock.Token] it has
// seen and refuse lower ones; tokens rise with every holder of a key, also over
// restarts and failovers of Redis.
//
// Redis replicates asynchronously: a failover may forget a lock that is held. So
// do FLUSHALL, a restart without persistence, and eviction.
//
// When a lease ends without a release, one newcomer may slip in before the line
// is looked at.
//
// What a Redis Cluster, Sentinel, and a quorum over several masters
// ([NewQuorumManager]) promise differently stands in the README.
//
// How it works, with every key and script, stands in docs/protocol.md.
package redislock
