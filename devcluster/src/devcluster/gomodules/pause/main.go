// Pause does nothing until it is told to stop, and reaps the children it inherits.
//
// It is process 1 in two places: in every Pod, where it holds the namespaces its containers share, and in a cluster's
// node, where its death ends everything that runs there. Process 1 inherits orphans; without the reaping each finished
// container shim would stay behind as a zombie.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGCHLD, syscall.SIGINT, syscall.SIGTERM)
	reap() // children that ended before Notify sent no signal
	for received := range signals {
		if received != syscall.SIGCHLD {
			return
		}
		reap()
	}
}

// reap collects every child that has ended; one SIGCHLD can stand for several.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
	}
}
