package web

import (
	"bytes"
	"context"
	"fmt"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

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
