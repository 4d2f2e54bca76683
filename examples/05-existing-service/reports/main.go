// A program in another language: it reads the files of its binding, laid out as servicebinding.io says, and needs no
// library for that.
//
// Usage: reports            sends one notification a second, until it is ended
//
//	reports call N     sends N of them; exits with 1 unless all were answered
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The name of the link, which is the name of its folder.
const link = "reports-to-notification-service"

type binding struct {
	uri, header, key string
}

// readBinding reads where to call and with what. It is read for every call, since the key changes while the program
// runs. The kubelet swaps all files at once, by the link ..data; reading through what that leads to now gives an
// address and a key of the same moment.
func readBinding(root string) (binding, error) {
	folder, err := filepath.EvalSymlinks(filepath.Join(root, link, "..data"))
	if err != nil {
		return binding{}, fmt.Errorf("no binding yet: %w", err)
	}
	var read [3]string
	for place, name := range []string{"uri", "header", "api-key"} {
		content, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			return binding{}, err
		}
		read[place] = strings.TrimSpace(string(content))
	}
	return binding{uri: read[0], header: read[1], key: read[2]}, nil
}

// notify sends one notification, and answers the status.
func notify(client *http.Client, order int) (string, error) {
	found, err := readBinding(os.Getenv("SERVICE_BINDING_ROOT"))
	if err != nil {
		return "", err
	}
	body := strings.NewReader(fmt.Sprintf(`{"order": %d}`, order))
	request, err := http.NewRequest(http.MethodPost, found.uri+"/notifications", body)
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set(found.header, found.key)
	answer, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	// Read to its end, so that the connection serves the next call.
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.Status, err
}

func run(client *http.Client) {
	for order := 1; ; order++ {
		if said, err := notify(client, order); err != nil {
			fmt.Printf("order %d: %v\n", order, err)
		} else {
			fmt.Printf("order %d: %s\n", order, said)
		}
		time.Sleep(time.Second)
	}
}

func call(client *http.Client, times int) bool {
	answered, last := 0, ""
	for order := range times {
		said, err := notify(client, order)
		switch {
		case err != nil:
			last = ", at last " + err.Error()
		case said == "202 Accepted":
			answered++
		default:
			last = ", at last " + said
		}
	}
	fmt.Printf("%d of %d answered%s\n", answered, times, last)
	return answered == times
}

func main() {
	client := &http.Client{
		Timeout: 5 * time.Second,
		// A redirect would carry the key to wherever it leads.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	if len(os.Args) == 1 {
		run(client)
	}
	times, err := strconv.Atoi(os.Args[len(os.Args)-1])
	if err != nil || len(os.Args) != 3 || os.Args[1] != "call" {
		fmt.Fprintln(os.Stderr, "usage: reports [call N]")
		os.Exit(2)
	}
	if !call(client, times) {
		os.Exit(1)
	}
}
