package redislock

// ID is what names the manager in queues and channels.
func (m *LockManager) ID() string { return m.id }
