// A client in another language, which knows the names of a binding's files and nothing else of ServiceLink.
//
// For each line of standard input, a path, it reads the binding anew, makes one GET, and prints status and body.
// Usage: go_client FOLDER
package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// read answers the text of a binding's file, "" where there is none.
func read(folder, name string) string {
	text, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// settings answers what the binding says of TLS.
func settings(folder string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if roots := read(folder, "ca.crt"); roots != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(roots)) {
			return nil, fmt.Errorf("ca.crt holds no certificate")
		}
	}
	if chain := read(folder, "tls.crt"); chain != "" {
		pair, err := tls.X509KeyPair([]byte(chain), []byte(read(folder, "tls.key")))
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// call answers status and body of one GET.
func call(folder, path string) (string, error) {
	// The folder is swapped by one symbolic link: through its target all files are of one generation.
	if target, err := os.Readlink(filepath.Join(folder, "..data")); err == nil {
		folder = filepath.Join(folder, target)
	}
	config, err := settings(folder)
	if err != nil {
		return "", err
	}
	request, err := http.NewRequest(http.MethodGet, read(folder, "uri")+path, nil)
	if err != nil {
		return "", err
	}
	if key := read(folder, "api-key"); key != "" {
		request.Header.Set(read(folder, "header"), key)
	}
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return fmt.Sprintf("%d %s", response.StatusCode, body), err
}

func main() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		said, err := call(os.Args[1], lines.Text())
		if err != nil {
			said = "failed: " + err.Error()
		}
		fmt.Println(strings.ReplaceAll(said, "\n", " "))
	}
}
