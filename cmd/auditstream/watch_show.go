package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"auditstream/internal/store"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/cupwriter"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// newWatchDisplay shows bars where standard output is a terminal that can move its cursor, and prints events elsewhere.
func newWatchDisplay(std streams, rows watchedRows) watchDisplay {
	terminal, ok := std.out.(*os.File)
	if !ok || !cupwriter.New(terminal, false).IsTerminal() {
		return watchLines{std}
	}
	if os.Getenv("TERM") == "dumb" {
		return watchLines{std}
	}
	return newWatchBars(terminal, rows, os.Getenv("NO_COLOR") == "")
}

// watchLines prints one JSON line an event: it may end in a terminal, through a pipe or later, out of a file.
type watchLines struct{ std streams }

func (l watchLines) event(_ watched, data string) error {
	_, err := fmt.Fprintf(l.std.out, "%s\n", escaped(data))
	return err
}

func (l watchLines) note(text string) { fmt.Fprintln(l.std.err, "auditstream:", text) }

func (watchLines) begin() {}

func (watchLines) close() {}

// watchBars shows a bar for each row; of all that are the user's for those that have not ended, and a line for each that has. All texts that
// come from elsewhere go through printable.
type watchBars struct {
	rows     watchedRows
	colour   bool
	progress *mpb.Progress
	bars     map[store.Key]*watchBar
}

// watchBar is what a bar shows; mpb asks for it from a goroutine of its own.
type watchBar struct {
	bar    *mpb.Bar
	began  time.Time
	colour bool
	state  atomic.Pointer[watchedState]
}

type watchedState struct {
	watched
	ended time.Time // zero: it has not
}

const (
	barWidth = 20
	refresh  = 150 * time.Millisecond
)

func newWatchBars(terminal *os.File, rows watchedRows, colour bool) *watchBars {
	b := &watchBars{rows: rows, colour: colour, bars: make(map[store.Key]*watchBar),
		progress: mpb.New(mpb.WithConsoleWriter(&watchConsole{Writer: cupwriter.New(terminal, false), terminal: terminal}), mpb.WithRefreshRate(refresh))}
	for _, key := range rows.keys {
		b.add(key)
	}
	return b
}

func (b *watchBars) add(key store.Key) *watchBar {
	w := &watchBar{began: time.Now(), colour: b.colour}
	w.state.Store(&watchedState{watched: watched{Status: "waiting"}})
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("").Padding("░")
	name := runewidth.Truncate(b.rows.name(key), 48, "…") // a UUID has 36
	// The total is set later because a bar that is given one is over when it is full, and a row need not be.
	w.bar = b.progress.New(0, style, mpb.BarWidth(barWidth), mpb.BarFillerTrim(),
		mpb.PrependDecorators(decor.Name(name+" ", decor.WCSyncWidthR), decor.Any(w.status, decor.WCSyncWidthR)),
		mpb.AppendDecorators(decor.Any(w.percent), decor.Any(w.elapsed, decor.WCSyncWidth), decor.Any(w.message)))
	w.bar.SetTotal(100, false)
	b.bars[key] = w
	return w
}

// watchConsole draws the bars over those before. mpb's own way erases the screen below the first bar, and tmux and others keep what
// is erased from the top line on in their history, at each turn; it also miscounts when there are more bars than lines
// (v8.16.2 subtracts those without a place from those with one).
type watchConsole struct {
	*cupwriter.Writer // knows the terminal
	terminal          io.Writer
	turn              bytes.Buffer
	bars, before      int // in this turn, in the one before
}

// GetTermSize keeps a line for the cursor: as many bars as the terminal has lines would scroll at each turn.
func (c *watchConsole) GetTermSize() (width, height int, err error) {
	width, height, err = c.Writer.GetTermSize()
	return width, max(height-1, 1), err
}

// Write takes text that stands above the bars from now on.
func (c *watchConsole) Write(text []byte) (int, error) {
	c.turn.Write(bytes.ReplaceAll(text, []byte("\n"), []byte(eraseLine+"\n")))
	return len(text), nil
}

// ReadFrom takes one bar.
func (c *watchConsole) ReadFrom(bar io.Reader) (int64, error) {
	line, err := io.ReadAll(bar)
	if len(line) > 0 {
		c.bars++
	}
	_, _ = c.Write(line)
	return int64(len(line)), err
}

const (
	eraseLine  = "\x1b[K"
	eraseBelow = "\x1b[J"
)

// Flush ends a turn.
func (c *watchConsole) Flush(int) error {
	text := c.turn.String() + eraseBelow
	if c.before > 0 { // "up 0" is "up 1"
		text = fmt.Sprintf("\x1b[%dA", c.before) + text
	}
	c.turn.Reset()
	c.bars, c.before = 0, c.bars
	_, err := io.WriteString(c.terminal, text)
	return err
}

func (b *watchBars) event(w watched, _ string) error {
	bar, ok := b.bars[w.Key]
	if !ok {
		bar = b.add(w.Key)
	}
	state := &watchedState{watched: w}
	if w.terminal() {
		state.ended = time.Now()
	}
	bar.state.Store(state)
	bar.bar.SetCurrent(int64(w.Progress))
	if b.rows.keys == nil && w.terminal() {
		b.remove(w.Key)
		line := fmt.Sprintf("%s %s%3d %%  %s\n", b.rows.name(w.Key), bar.status(decor.Statistics{}), w.Progress, printable(cmp.Or(w.Error, w.Message)))
		_, _ = io.WriteString(b.progress, line)
	}
	return nil
}

func (b *watchBars) remove(key store.Key) {
	b.bars[key].bar.Abort(true)
	delete(b.bars, key)
}

// begin takes away what may not be the user's any more: a connection begins with all that is.
func (b *watchBars) begin() {
	for key := range b.bars {
		if b.rows.keys == nil {
			b.remove(key)
		}
	}
}

// note stands above the bars: standard error is this terminal too, as a rule.
func (b *watchBars) note(text string) { _, _ = io.WriteString(b.progress, "auditstream: "+text+"\n") }

// close leaves the bars as they are, and the cursor below.
func (b *watchBars) close() {
	for _, w := range b.bars {
		w.bar.Abort(false)
	}
	b.progress.Wait()
}

func (w *watchBar) status(decor.Statistics) string {
	s := w.state.Load()
	mark, colour := "  ", ""
	switch {
	case s.Status == "completed":
		mark, colour = "✓ ", "\x1b[32m"
	case s.Status == "failed":
		mark, colour = "✗ ", "\x1b[31m"
	case s.End:
		mark = "■ "
	}
	text := mark + runewidth.Truncate(printable(s.Status), 12, "…")
	if w.colour && colour != "" {
		text = colour + text + "\x1b[0m"
	}
	return text + " "
}

func (w *watchBar) percent(decor.Statistics) string {
	return fmt.Sprintf(" %3d %%", w.state.Load().Progress)
}

func (w *watchBar) elapsed(decor.Statistics) string {
	end := w.state.Load().ended
	if end.IsZero() {
		end = time.Now()
	}
	return "  " + end.Sub(w.began).Truncate(time.Second).String()
}

// message takes the place that the bar leaves.
func (w *watchBar) message(s decor.Statistics) string {
	state := w.state.Load()
	text := state.Message
	if state.Status == "failed" && state.Error != "" {
		text = state.Error
	}
	room := s.AvailableWidth - barWidth - 2
	if text == "" || room < 1 {
		return ""
	}
	return "  " + runewidth.Truncate(printable(text), room, "…")
}
