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

// newWatchDisplay returns bars if standard output is a terminal that can move its cursor, and lines otherwise.
func newWatchDisplay(std streams, rows rowSelection) watchDisplay {
	terminal, ok := std.out.(*os.File)
	if !ok || !cupwriter.New(terminal, false).IsTerminal() {
		return lineDisplay{std}
	}
	if os.Getenv("TERM") == "dumb" {
		return lineDisplay{std}
	}
	return newBarDisplay(terminal, rows, os.Getenv("NO_COLOR") == "")
}

// lineDisplay prints one line of JSON for each event. The line is safe for a terminal, where it may end through a pipe or from a file.
type lineDisplay struct{ std streams }

func (l lineDisplay) event(_ rowState, data string) error {
	_, err := fmt.Fprintf(l.std.out, "%s\n", escaped(data))
	return err
}

func (l lineDisplay) note(text string) { fmt.Fprintln(l.std.err, "auditstream:", text) }

func (lineDisplay) begin() {}

func (lineDisplay) close() {}

// barDisplay shows a bar for each row. When it follows all of the user's rows, a row that ends leaves a line in place of its bar. All texts of
// the server go through printable.
type barDisplay struct {
	rows     rowSelection
	colour   bool
	progress *mpb.Progress
	bars     map[store.Key]*rowBar
}

// rowBar is one bar. mpb reads its state from another goroutine.
type rowBar struct {
	bar    *mpb.Bar
	began  time.Time
	colour bool
	state  atomic.Pointer[barState]
}

type barState struct {
	rowState
	ended time.Time // zero: the row has not ended
}

const (
	barWidth = 20
	refresh  = 150 * time.Millisecond
)

func newBarDisplay(terminal *os.File, rows rowSelection, colour bool) *barDisplay {
	b := &barDisplay{rows: rows, colour: colour, bars: make(map[store.Key]*rowBar),
		progress: mpb.New(mpb.WithConsoleWriter(&watchConsole{Writer: cupwriter.New(terminal, false), terminal: terminal}), mpb.WithRefreshRate(refresh))}
	for _, key := range rows.keys {
		b.add(key)
	}
	return b
}

func (b *barDisplay) add(key store.Key) *rowBar {
	w := &rowBar{began: time.Now(), colour: b.colour}
	w.state.Store(&barState{rowState: rowState{Status: "waiting"}})
	style := mpb.BarStyle().Lbound("").Rbound("").Filler("█").Tip("").Padding("░")
	name := runewidth.Truncate(b.rows.name(key), 48, "…") // a UUID has 36 characters
	// The total is set later: a bar that is made with a total completes when it is full, and a row at 100 % may not have ended.
	w.bar = b.progress.New(0, style, mpb.BarWidth(barWidth), mpb.BarFillerTrim(),
		mpb.PrependDecorators(decor.Name(name+" ", decor.WCSyncWidthR), decor.Any(w.status, decor.WCSyncWidthR)),
		mpb.AppendDecorators(decor.Any(w.percent), decor.Any(w.elapsed, decor.WCSyncWidth), decor.Any(w.message)))
	w.bar.SetTotal(100, false)
	b.bars[key] = w
	return w
}

// watchConsole draws each turn's bars over those of the last. mpb itself erases the screen from the first bar on; when that is the top line, tmux
// and other terminals copy the erased screen to their history, at each turn. It also miscounts if there are more bars than lines (v8.16.2
// subtracts the bars without a line from those with one).
type watchConsole struct {
	*cupwriter.Writer // for the terminal's size
	terminal          io.Writer
	turn              bytes.Buffer
	bars, before      int // number of bars in this turn and in the last
}

// GetTermSize returns one line less, for the cursor: with as many bars as lines the terminal would scroll at each turn.
func (c *watchConsole) GetTermSize() (width, height int, err error) {
	width, height, err = c.Writer.GetTermSize()
	return width, max(height-1, 1), err
}

// Write adds text to the turn, above the bars.
func (c *watchConsole) Write(text []byte) (int, error) {
	c.turn.Write(bytes.ReplaceAll(text, []byte("\n"), []byte(eraseLine+"\n")))
	return len(text), nil
}

// ReadFrom adds one bar to the turn.
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

// Flush writes the turn to the terminal.
func (c *watchConsole) Flush(int) error {
	text := c.turn.String() + eraseBelow
	if c.before > 0 { // terminals take "up 0" for "up 1"
		text = fmt.Sprintf("\x1b[%dA", c.before) + text
	}
	c.turn.Reset()
	c.bars, c.before = 0, c.bars
	_, err := io.WriteString(c.terminal, text)
	return err
}

func (b *barDisplay) event(w rowState, _ string) error {
	bar, ok := b.bars[w.Key]
	if !ok {
		bar = b.add(w.Key)
	}
	state := &barState{rowState: w}
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

func (b *barDisplay) remove(key store.Key) {
	b.bars[key].bar.Abort(true)
	delete(b.bars, key)
}

// begin removes the bars when all of the user's rows are watched: a stream begins with all rows that are still the user's.
func (b *barDisplay) begin() {
	for key := range b.bars {
		if b.rows.keys == nil {
			b.remove(key)
		}
	}
}

// note writes above the bars and not to standard error, which usually is the same terminal.
func (b *barDisplay) note(text string) { _, _ = io.WriteString(b.progress, "auditstream: "+text+"\n") }

// close leaves the bars on the screen, and the cursor below them.
func (b *barDisplay) close() {
	for _, w := range b.bars {
		w.bar.Abort(false)
	}
	b.progress.Wait()
}

func (w *rowBar) status(decor.Statistics) string {
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

func (w *rowBar) percent(decor.Statistics) string {
	return fmt.Sprintf(" %3d %%", w.state.Load().Progress)
}

func (w *rowBar) elapsed(decor.Statistics) string {
	end := w.state.Load().ended
	if end.IsZero() {
		end = time.Now()
	}
	return "  " + end.Sub(w.began).Truncate(time.Second).String()
}

// message returns the row's text, cut to the rest of the line behind the bar.
func (w *rowBar) message(s decor.Statistics) string {
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
