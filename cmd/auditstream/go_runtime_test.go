package main

import "testing"

func TestHalfOfTheProcessors(t *testing.T) {
	t.Parallel()
	for processors, want := range map[int]int{1: 1, 2: 1, 3: 2, 4: 2, 5: 3, 8: 4} {
		if got := half(processors); got != want {
			t.Errorf("of %d: %d, want %d", processors, got, want)
		}
	}
}
