package pgnotify

import (
	"context"
	"log/slog"
)

// Trouble logs when something begins to fail and when it works again, and nothing in between. The zero value is ready for use, by one
// goroutine.
type Trouble struct{ failing bool }

// Log takes the result of one attempt. After a success, an error is logged at level with the message fails; after an error, a success is
// logged with the message works.
func (t *Trouble) Log(logger *slog.Logger, level slog.Level, err error, fails, works string) {
	switch failing := err != nil; {
	case failing && !t.failing:
		logger.Log(context.Background(), level, fails, "error", err)
	case !failing && t.failing:
		logger.Info(works)
	}
	t.failing = err != nil
}
