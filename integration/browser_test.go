package integration

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// TestPageShowsDevAudits is a newcomer's first minute: start dev, open the page, run the psql line that it shows.
func TestPageShowsDevAudits(t *testing.T) {
	t.Parallel()
	url := startDev(t)
	p := openPage(t, url)

	p.wait(t, "five audits, all live", `document.querySelectorAll('#running .row[data-state="live"]').length === 5`)
	p.eval(t, `window.before = [...document.querySelectorAll('#running .bar')].map(bar => bar.getAttribute('aria-valuenow'))`)
	p.wait(t, "two bars to move", `[...document.querySelectorAll('#running .bar')]
		.filter((bar, i) => bar.getAttribute('aria-valuenow') !== before[i]
			&& bar.firstElementChild.style.width === bar.getAttribute('aria-valuenow') + '%').length >= 2`)

	// The line is run in a shell as it stands, as somebody would who has copied it.
	line := p.text(t, "#sql")
	if out, err := exec.CommandContext(t.Context(), "sh", "-c", line).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
	p.wait(t, "the row changed by hand", `(row => row.querySelector('.percent').textContent === '50'
		&& row.querySelector('.stage').textContent.startsWith('by hand at '))(document.querySelector('#running .row'))`)
	p.wait(t, "its event in the detail", `document.querySelector('#log li code')?.textContent.includes('"message":"by hand at ')`)
	p.wait(t, "its new progress marked", `document.querySelector('#log li .changed') !== null`)

	if curl := p.text(t, "#curl"); !strings.HasPrefix(curl, "curl -N "+strings.TrimSuffix(url, "/")+"/api/v1/sse/audits/") {
		t.Errorf("curl line: %s", curl)
	}
	p.eval(t, `document.querySelector('[data-copy=curl]').click()`)
	p.wait(t, "the copy button's answer", `document.querySelector('[data-copy=curl]').textContent !== 'Copy'`)

	// By keyboard: from the first audit to the second, and choose it.
	p.eval(t, `document.querySelector('#running .pick').focus()`)
	p.eval(t, `window.second = document.querySelectorAll('#running .pick')[1]`)
	p.do(t, chromedp.KeyEvent(kb.Tab), chromedp.KeyEvent(kb.Enter))
	p.wait(t, "the second audit's detail", `document.activeElement === second && second.getAttribute('aria-pressed') === 'true'
		&& document.querySelector('#detail-title').textContent === second.textContent`)

	p.wait(t, "a completed audit and its successor", `document.querySelector('#ended .row[data-status=completed] .score')?.textContent
		&& document.querySelectorAll('#running .row').length === 5`)
	p.wait(t, "the focus to stay with an audit that has moved", `second.closest('#ended') && document.activeElement === second`)
	p.wait(t, "a failed audit", `document.querySelector('.row[data-status=failed] .stage')?.textContent.startsWith('Competitor analysis failed')`)
	p.eval(t, `document.querySelector('.row[data-status=failed] .pick').click()`)
	p.wait(t, "why it failed", `document.querySelector('#detail-error').checkVisibility()
		&& document.querySelector('#detail-error').textContent.startsWith('Competitor analysis failed')`)
	p.screenshots(t, "failed")

	p.eval(t, `document.querySelectorAll('#running .pick')[3].click()`)
	p.screenshots(t, "page")
	if problems := p.consoleProblems(); len(problems) > 0 {
		t.Errorf("the console shows:\n%s", strings.Join(problems, "\n"))
	}
	// That the silence above means something.
	p.eval(t, `document.body.setAttribute('style', 'color: red')`)
	eventually(t, func() error {
		if problems := strings.Join(p.consoleProblems(), "\n"); !strings.Contains(problems, "Content Security Policy") {
			return fmt.Errorf("an inline style goes unnoticed; the console shows %q", problems)
		}
		return nil
	})
}

// TestPageSurvivesRestart stops dev under an open page and starts it again on the same port: the page goes on by itself.
func TestPageSurvivesRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first := runDev(t, dir, "127.0.0.1:0")
	p := openPage(t, first.url)
	live := `document.querySelectorAll('#running .row[data-state="live"]').length === 5`
	p.wait(t, "live streams", live)
	first.stop(t)
	p.wait(t, "the page to notice", `document.querySelector('#link').dataset.state !== 'live'`)
	second := runDev(t, dir, strings.Trim(strings.TrimPrefix(first.url, "http://"), "/"))
	p.wait(t, "live streams again", live+` && document.querySelector('#link').dataset.state === 'live'`)
	second.stop(t)
}

// devServer is a running auditstream dev.
type devServer struct {
	url  string
	cmd  *exec.Cmd
	out  *logBuffer
	done chan struct{} // closed when the process has ended
}

// startDev runs auditstream dev in a directory of its own until the end of the test, and returns the page's address.
func startDev(t testing.TB) string {
	t.Helper()
	return runDev(t, t.TempDir(), "127.0.0.1:0").url
}

func runDev(t testing.TB, dir, addr string) *devServer {
	t.Helper()
	d := &devServer{out: newLogBuffer(), done: make(chan struct{})}
	d.cmd = exec.Command(binary(t), "dev", "--dir", filepath.Join(dir, "dev"), "--http-addr", addr)
	d.cmd.Dir = dir
	d.cmd.Env = environment(nil)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(d.done)
		_ = d.cmd.Wait() // the exit status is looked at in stop
	}()
	t.Cleanup(func() { d.stop(t) })

	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+/\n`)
	deadline := time.After(2 * patience) // the first run makes a database cluster
	for {
		changed := d.out.changed()
		if d.url = strings.TrimSpace(address.FindString(d.out.String())); d.url != "" {
			return d
		}
		select {
		case <-changed:
		case <-d.done:
			t.Fatalf("auditstream dev has ended:\n%s", d.out.String())
		case <-deadline:
			t.Fatalf("auditstream dev prints no address:\n%s", d.out.String())
		}
	}
}

// stop ends dev as Ctrl-C does; it must exit with status 0. Stopping twice is once.
func (d *devServer) stop(t testing.TB) {
	t.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGINT) // it may have ended
	select {
	case <-d.done:
	case <-time.After(patience):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // a stack dump says where it hangs
		<-d.done
		t.Errorf("auditstream dev did not exit within %v", patience)
	}
	if code := d.cmd.ProcessState.ExitCode(); code != 0 || strings.Contains(d.out.String(), "DATA RACE") {
		t.Errorf("auditstream dev: exit status %d:\n%s", code, d.out.String())
	}
}

// page is a tab of a browser of its own.
type page struct {
	ctx context.Context

	mu       sync.Mutex
	problems []string // errors and warnings of its console, uncaught exceptions, violations of its policy
}

// openPage opens url in Chromium, with further options of the browser's. It ends with the test.
func openPage(t testing.TB, url string, more ...chromedp.ExecAllocatorOption) *page {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(chromium(t)),
		chromedp.NoSandbox, // tests run as root too
		chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
	)
	allocator, stop := chromedp.NewExecAllocator(context.Background(), append(options, more...)...)
	t.Cleanup(stop)
	return openTab(t, allocator, url)
}

// tab opens url in a new tab of the page's window, in front of it.
func (p *page) tab(t testing.TB, url string) *page {
	t.Helper()
	return openTab(t, p.ctx, url, chromedp.WithNewWindow(false))
}

func openTab(t testing.TB, parent context.Context, url string, options ...chromedp.ContextOption) *page {
	t.Helper()
	ctx, cancel := chromedp.NewContext(parent, options...)
	p := &page{ctx: ctx}
	console := chromedp.Console(ctx) // starts the browser
	var reading sync.WaitGroup
	reading.Go(func() {
		for message, err := range console {
			if err != nil {
				return
			}
			p.note(message)
		}
	})
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the console shows: %q", p.consoleProblems())
		}
		cancel()
		reading.Wait()
	})
	p.do(t, chromedp.EmulateViewport(1280, 800), chromedp.Navigate(url))
	return p
}

func chromium(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("a browser is needed: install Chromium (Debian: apt-get install chromium) or Google Chrome, and have it on the PATH")
	return ""
}

func (p *page) note(m chromedp.ConsoleMessage) {
	switch m.Type {
	case chromedp.ConsoleError, chromedp.ConsoleWarning, chromedp.ConsoleException:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.problems = append(p.problems, fmt.Sprintf("%s %s (%s)", m, m.Source, m.URL))
	}
}

func (p *page) consoleProblems() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.problems...)
}

func (p *page) do(t testing.TB, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 2*patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

func (p *page) eval(t testing.TB, script string) {
	t.Helper()
	p.do(t, chromedp.Evaluate[chromedp.Void](script))
}

// wait waits until a JavaScript expression is true.
func (p *page) wait(t testing.TB, what, expression string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 3*patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[chromedp.Void](expression,
		chromedp.WithPollingTimeout(2*patience), chromedp.WithPollingInterval(50*time.Millisecond))) // a hidden tab has no animation frames
	if err != nil {
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		t.Fatalf("waiting for %s: %v; the page shows:\n%s", what, err, text)
	}
}

func (p *page) text(t testing.TB, selector string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.TextContent(chromedp.CSS(selector)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// screenshots keeps pictures of the page (go test -artifacts -outputdir DIR), and checks that nothing is cut off at the
// side.
func (p *page) screenshots(t *testing.T, name string) {
	t.Helper()
	dir := t.ArtifactDir()
	for _, size := range []struct{ width, height int64 }{{1280, 800}, {390, 844}} {
		for _, scheme := range []string{"light", "dark"} {
			var options []chromedp.EmulateViewportOption
			if size.width < 500 {
				options = append(options, chromedp.EmulateMobile, chromedp.EmulateTouch, chromedp.EmulateScale(2))
			}
			p.do(t, chromedp.EmulateViewport(size.width, size.height, options...), preferScheme(scheme))
			p.eval(t, "scrollTo({top: 0, behavior: 'instant'})")
			p.wait(t, "the width", fmt.Sprintf("innerWidth === %d && document.documentElement.scrollWidth <= innerWidth", size.width))
			p.wait(t, "the new colours", "document.getAnimations().every(({transitionProperty}) => (transitionProperty ?? 'width') === 'width')")
			for _, shot := range []struct {
				suffix string
				take   chromedp.Action[[]byte]
			}{{"", chromedp.CaptureScreenshot()}, {"-full", chromedp.FullScreenshot(100)}} {
				picture, err := chromedp.Run(p.ctx, shot.take)
				if err != nil {
					t.Fatal(err)
				}
				file := fmt.Sprintf("%s-%d-%s%s.png", name, size.width, scheme, shot.suffix)
				if err := os.WriteFile(filepath.Join(dir, file), picture, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
}

func preferScheme(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}
