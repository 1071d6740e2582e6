// Package server is the HTTP side: who may see an audit, and the stream that shows it to them.
//
// The rule that keeps it right: nothing is sent that was not read from the database for this viewer's audit, and every
// state is checked against its owner before it is written. SSE bytes are written in event.go alone, and the answer to an
// error is chosen in writeError alone.
package server
