package main

import (
	"bytes"
	"cmp"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"maps"
	"slices"
)

// Sizes of a palette: the most frequent colours as they are, which is nearly all of a page, and then one for each group of similar ones, which is
// letters' edges, and text in a colour that there is little of.
const (
	most     = 256
	mostSame = 64
)

// small writes a PNG anew with a palette, which takes a third of the bytes: pictures are in the repository, and in the binary.
func small(picture []byte) ([]byte, error) {
	img, err := png.Decode(bytes.NewReader(picture))
	if err != nil {
		return nil, fmt.Errorf("read screenshot: %w", err)
	}
	paletted := image.NewPaletted(img.Bounds(), paletteOf(img))
	draw.Draw(paletted, img.Bounds(), img, img.Bounds().Min, draw.Src) // each pixel gets the nearest colour
	var out bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&out, paletted); err != nil {
		return nil, fmt.Errorf("write picture: %w", err)
	}
	return out.Bytes(), nil
}

func paletteOf(img image.Image) (palette color.Palette) {
	count := map[color.RGBA]int{}
	for y := img.Bounds().Min.Y; y < img.Bounds().Max.Y; y++ {
		for x := img.Bounds().Min.X; x < img.Bounds().Max.X; x++ {
			count[color.RGBAModel.Convert(img.At(x, y)).(color.RGBA)]++
		}
	}
	frequent := slices.SortedFunc(maps.Keys(count), func(a, b color.RGBA) int {
		return cmp.Or(count[b]-count[a], int(a.R)-int(b.R), int(a.G)-int(b.G), int(a.B)-int(b.B))
	})
	grouped := map[color.RGBA]bool{}
	for n, c := range frequent {
		group := color.RGBA{c.R >> 4, c.G >> 4, c.B >> 4, c.A >> 4}
		if len(palette) < most && (n < mostSame || !grouped[group]) {
			palette = append(palette, c)
		}
		grouped[group] = true
	}
	return palette
}
