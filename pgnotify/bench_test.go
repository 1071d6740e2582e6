package pgnotify

import (
	"context"
	"fmt"
	"testing"

	"auditstream/store"
)

// BenchmarkNotifyToDeliver measures from a notification to the moment that every subscriber has the new state.
func BenchmarkNotifyToDeliver(b *testing.B) {
	for _, subscribers := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(subscribers), func(b *testing.B) {
			progress := 0
			h := startHub(b, HubConfig{Loader: loaderFunc(func(context.Context, []int64) ([]*store.State, error) {
				progress++
				return []*store.State{store.NewState(running(1, progress))}, nil
			})})
			slots := make([]<-chan *store.State, subscribers)
			for i := range slots {
				slots[i] = subscribe(b, h, 1)
				<-slots[i]
			}
			drain(h, slots)
			b.ReportAllocs()
			for b.Loop() {
				h.Notify(1)
				for _, slot := range slots {
					<-slot
				}
			}
		})
	}
}

// drain empties the slots of what the reads for later subscribers left there.
func drain(h *Hub, slots []<-chan *store.State) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, slot := range slots {
		select {
		case <-slot:
		default:
		}
	}
}
