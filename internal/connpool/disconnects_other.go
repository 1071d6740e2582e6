//go:build !linux

package connpool

// disconnects watches nothing on systems without epoll: heartbeats find the clients that have disconnected.
type disconnects struct{}

func newDisconnects(*Pool) (*disconnects, error) { return nil, nil }

func (d *disconnects) watch(*Conn, bool) bool { return false }
func (d *disconnects) unwatch(*Conn)          {}
func (d *disconnects) run()                   {}
func (d *disconnects) close()                 {}
