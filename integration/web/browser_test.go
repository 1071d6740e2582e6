package web

import (
	"bytes"
	"context"
	"fmt"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"auditstream/integration/harness"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// devServer is a running auditstream dev.
type devServer struct {
	url  string
	cmd  *exec.Cmd
	out  *harness.LogBuffer
	done chan struct{} // closed when the process has ended
}

// startDev runs auditstream dev in a directory of its own until the end of the test, and returns the page's address.
func startDev(t testing.TB) string {
	t.Helper()
	return runDev(t, t.TempDir(), "127.0.0.1:0").url
}

func runDev(t testing.TB, dir, addr string) *devServer {
	t.Helper()
	d := &devServer{out: harness.NewLogBuffer()}
	d.cmd = exec.Command(harness.Binary(t), "dev", "--dir", filepath.Join(dir, "dev"), "--http-addr", addr)
	d.cmd.Dir = dir
	d.cmd.Env = harness.Environment(nil)
	d.cmd.Stdout, d.cmd.Stderr = d.out, d.out
	d.done = harness.StartProcess(t, d.cmd)
	t.Cleanup(func() { d.stop(t) })

	address := regexp.MustCompile(`http://127\.0\.0\.1:\d+/\n`)
	deadline := time.After(2 * harness.Patience) // the first run makes a database cluster
	for {
		changed := d.out.Changed()
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
	case <-time.After(harness.Patience):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // a stack dump says where it hangs
		<-d.done
		t.Errorf("auditstream dev did not exit within %v", harness.Patience)
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
	takeBrowser(t)
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

// browsers bounds how many run at a time: each draws its page with all the processor that it gets.
var browsers = struct {
	slots chan struct{}
	taken sync.Map // by top-level test, which may open several
}{slots: make(chan struct{}, 2)}

// takeBrowser waits until the test may have a browser, which it has until it ends.
func takeBrowser(t testing.TB) {
	t.Helper()
	if _, has := browsers.taken.LoadOrStore(t.Name(), true); has {
		return
	}
	browsers.slots <- struct{}{}
	t.Cleanup(func() {
		browsers.taken.Delete(t.Name())
		<-browsers.slots
	})
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

// clean checks that the console is empty, and that what breaks the policy would be in it.
func (p *page) clean(t testing.TB) {
	t.Helper()
	problems := slices.DeleteFunc(p.consoleProblems(), func(problem string) bool {
		return strings.Contains(problem, "404") && strings.HasSuffix(problem, "/status)") // dev has removed an audit that had ended
	})
	if len(problems) > 0 {
		t.Errorf("the console shows:\n%s", strings.Join(problems, "\n"))
	}
	p.eval(t, `document.body.setAttribute('style', 'color: red')`)
	harness.Eventually(t, func() error {
		if problems := strings.Join(p.consoleProblems(), "\n"); !strings.Contains(problems, "Content Security Policy") {
			return fmt.Errorf("an inline style goes unnoticed; the console shows %q", problems)
		}
		return nil
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = nil
}

func (p *page) do(t testing.TB, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 2*harness.Patience)
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
	ctx, cancel := context.WithTimeout(p.ctx, 3*harness.Patience)
	defer cancel()
	_, err := chromedp.Run(ctx, chromedp.Poll[chromedp.Void](expression,
		chromedp.WithPollingTimeout(2*harness.Patience), chromedp.WithPollingInterval(50*time.Millisecond))) // a hidden tab has no animation frames
	if err != nil {
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string]("document.body.innerText"))
		t.Fatalf("waiting for %s: %v; the page shows:\n%s", what, err, text)
	}
}

func (p *page) text(t testing.TB, selector string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, harness.Patience)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.TextContent(chromedp.CSS(selector)))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// screenshots keeps pictures of the page (go test -artifacts -outputdir DIR), and checks that nothing is cut off at the
// side and that something is to be seen.
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
			p.wait(t, "the width, without anything beside it", fmt.Sprintf("innerWidth === %d && document.documentElement.scrollWidth <= innerWidth", size.width))
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
				if err := shows(picture, scheme); err != nil {
					t.Errorf("%s: %v", file, err)
				}
			}
		}
	}
	p.do(t, chromedp.EmulateViewport(1280, 800), preferScheme("light"))
}

// shows checks that a picture has the ground of its scheme and many other colours on it.
func shows(picture []byte, scheme string) error {
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return err
	}
	colours := map[color.Color]bool{}
	bright, all := 0, 0
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y += 3 {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x += 3 {
			c := color.GrayModel.Convert(img.At(x, y)).(color.Gray)
			if all++; c.Y >= 128 {
				bright++
			}
			colours[img.At(x, y)] = true
		}
	}
	if len(colours) < 50 {
		return fmt.Errorf("only %d colours: it is blank, or nearly so", len(colours))
	}
	if share := float64(bright) / float64(all); (scheme == "light") != (share > 0.5) {
		return fmt.Errorf("%.0f %% of it are bright, in the %s scheme", 100*share, scheme)
	}
	return nil
}

func preferScheme(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, tab *chromedp.Target) error {
		_, err := cdp.Call(ctx, tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}
