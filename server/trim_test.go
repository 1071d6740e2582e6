package server

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestMemoryIsGivenBackAfterACrowdAndSeldom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name    string
		streams int
		every   time.Duration
		want    []time.Duration // from the start
	}{
		{"a crowd", wave, 0, []time.Duration{waveEnd}},
		{"a larger one is given back once, when it has ended", 5 * wave, time.Millisecond / 2, []time.Duration{5*wave*time.Millisecond/2 + waveEnd}},
		{"too few", wave - 1, 0, nil},
		{"as many, but slowly", 3 * wave, 2 * waveTime / wave, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				trim, freed := recordedTrimmer()
				for range tc.streams {
					time.Sleep(tc.every)
					trim.began()
				}
				time.Sleep(time.Minute)
				trim.stop()
				if got := freed(); !slices.Equal(got, tc.want) {
					t.Errorf("given back after %v, want %v", got, tc.want)
				}
			})
		})
	}
}

func TestMemoryIsNotGivenBackAllTheTimeUnderChurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		trim, freed := recordedTrimmer()
		crowd := func() {
			for range wave {
				trim.began()
			}
		}
		for range 40 { // far enough from each other to be crowds of their own
			crowd()
			time.Sleep(2 * waveEnd)
		}
		time.Sleep(trimPause)
		times := freed()
		for k := 1; k < len(times); k++ {
			if pause := times[k] - times[k-1]; pause < trimPause {
				t.Errorf("given back %v after the last time, want %v at least", pause, trimPause)
			}
		}
		if len(times) < 2 {
			t.Errorf("given back %d times", len(times))
		}
		crowd()
		trim.stop()
		crowd()
		time.Sleep(time.Minute)
		if after := freed(); len(after) != len(times) {
			t.Error("given back after the end")
		}
	})
}

// recordedTrimmer says when memory was given back, from now.
func recordedTrimmer() (trim *trimmer, freed func() []time.Duration) {
	var mu sync.Mutex
	var times []time.Duration
	start := time.Now()
	trim = newTrimmer(func() {
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Since(start).Round(time.Millisecond))
	})
	return trim, func() []time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(times)
	}
}
