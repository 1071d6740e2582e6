package redisnotify

import (
	"errors"
	"net/url"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// ioTimeout bounds connecting and each answer. Longer means that a dead Redis is noticed later.
const ioTimeout = 2 * time.Second

// The library would log to standard error. It also returns these errors, and we log them.
func init() { logging.Disable() }

// ParseURL reads redis://user:password@host:port/db (rediss for TLS) or unix://user:password@/socket?db=0. Its errors show neither the URL
// nor the name of an option, because a password that was not escaped may be in either.
func ParseURL(text string) (*redis.Options, error) {
	if u, err := url.Parse(text); err == nil {
		for option := range u.Query() {
			if option != "db" {
				return nil, errors.New("a URL with an option after the question mark (not shown, it may be a password that is not escaped): only db is allowed, as in redis://user:password@host:6379?db=0")
			}
		}
	}
	o, err := redis.ParseURL(text)
	if err != nil {
		return nil, errors.New("not a Redis URL (not shown, it may hold a password); give one like redis://user:password@host:6379/0, with rediss for TLS")
	}
	// Retries and time-outs are not for the URL to set: the callers' back-off decides about them.
	return &redis.Options{
		Network: o.Network, Addr: o.Addr, Username: o.Username, Password: o.Password, DB: o.DB, TLSConfig: o.TLSConfig,
		ClientName: "auditstream", Protocol: 2, DisableIdentity: true,
		MaxRetries: -1, DialerRetries: 1, PoolSize: 2,
		DialTimeout: ioTimeout, ReadTimeout: ioTimeout, WriteTimeout: ioTimeout, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}, nil
}
