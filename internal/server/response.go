package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"auditstream/internal/store"
)

// response is the sink of a stream that net/http serves. The handler's goroutine runs the stream.
type response struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	wake    chan struct{} // capacity 1: filled when Run must be called
	aborted bool          // a panic of ours ended the stream
}

// newResponse sends the header. The status is always 200: any other ends a browser's EventSource for good.
func newResponse(w http.ResponseWriter) *response {
	setEventHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	return &response{w: w, rc: http.NewResponseController(w), wake: make(chan struct{}, 1)}
}

// serve runs a stream until it ends.
func (r *response) serve(ctx context.Context, st *stream, first []*store.State) {
	st.events.out = r
	defer func() {
		if r.aborted {
			panic(http.ErrAbortHandler) // otherwise net/http would end the answer as a complete one
		}
	}()
	st.begin(first)
	if st.sub == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), errDraining) {
			st.Drain()
		} else {
			st.Input()
		}
	})
	defer stop()
	for st.Run(); st.sub != nil; st.Run() {
		<-r.wake
	}
}

// send clears the deadline afterwards: on HTTP/2 a deadline that passes resets the stream even if nothing is being written.
func (r *response) send(text string, event []byte) error {
	for _, part := range [][]byte{[]byte(text), event} {
		if err := writePieces(r.w, r.rc, part); err != nil {
			return err
		}
	}
	if err := r.rc.Flush(); err != nil {
		return fmt.Errorf("flush event: %w", err)
	}
	if err := r.rc.SetWriteDeadline(time.Time{}); err != nil {
		return fmt.Errorf("clear write deadline: %w", err)
	}
	return nil
}

func (r *response) Schedule() { r.wake <- struct{}{} } // never blocks: called once at most between two calls of Run

func (r *response) close(reason string, sound bool) { r.aborted = reason == endError && !sound }
