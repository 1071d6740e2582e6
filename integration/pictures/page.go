package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// Size of the page's pictures, in pixels.
const (
	pageWidth  = 1280
	pageHeight = 800
)

// What is done on the page, and waited for, before it is photographed: the listener is cut and comes back, and an audit is half done.
var scenes = []struct{ what, do, until string }{
	{"audits", ``, `document.querySelectorAll('#running .row[data-status=running]').length >= 4`},
	{
		"the listener's return",
		`document.querySelector('[data-action=kill-listener]').click()`,
		`document.querySelector('#happening').textContent.includes('The listener is back')`,
	},
	{
		"an audit in its middle",
		`[...document.querySelectorAll('#running .row')].find(row => row.textContent.includes('news.example')).querySelector('.pick').click()`,
		`document.querySelectorAll('#latency rect:not(.none)').length >= 12 && +document.querySelector('#detail-percent').textContent >= 45`,
	},
}

// photograph adds pictures of the page to those that there are, for readers in light and dark.
func photograph(ctx context.Context, url string, pictures map[string][]byte) error {
	browser, err := findBrowser()
	if err != nil {
		return err
	}
	// As in integration/web: root may run it, too, and it asks for nothing outside.
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(browser), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	allocator, stop := chromedp.NewExecAllocator(ctx, options...)
	defer stop()
	tab, leave := chromedp.NewContext(allocator)
	defer leave()
	if err := chromedp.Do(tab, chromedp.EmulateViewport(pageWidth, pageHeight), preferScheme("light"), chromedp.Navigate(url)); err != nil {
		return fmt.Errorf("open %s: %w", url, err)
	}
	for _, scene := range scenes {
		if scene.do != "" {
			if err := chromedp.Do(tab, chromedp.Evaluate[chromedp.Void](scene.do)); err != nil {
				return fmt.Errorf("%s: %w", scene.what, err)
			}
		}
		if err := waitFor(tab, scene.what, scene.until); err != nil {
			return err
		}
	}
	for _, shot := range []struct{ scheme, name string }{{"light", "page.png"}, {"dark", "page-dark.png"}} {
		if err := chromedp.Do(tab, preferScheme(shot.scheme)); err != nil {
			return err
		}
		// The colours change within a moment; the bars of audits move all the time.
		const changed = `document.getAnimations().every(({transitionProperty}) => (transitionProperty ?? 'width') === 'width')`
		if err := waitFor(tab, "the colours", changed); err != nil {
			return err
		}
		if pictures[shot.name], err = chromedp.Run(tab, chromedp.CaptureScreenshot()); err != nil {
			return fmt.Errorf("%s: %w", shot.name, err)
		}
	}
	return nil
}

func findBrowser() (string, error) {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("no chromium, chromium-browser or google-chrome on the PATH: install one (.ci/setup test does)")
}

// waitFor waits until a JavaScript expression is true.
func waitFor(tab context.Context, what, expression string) error {
	_, err := chromedp.Run(tab, chromedp.Poll[chromedp.Void](expression,
		chromedp.WithPollingTimeout(2*time.Minute), chromedp.WithPollingInterval(50*time.Millisecond)))
	if err != nil {
		return fmt.Errorf("wait for %s on the page: %w", what, err)
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
