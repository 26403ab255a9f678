package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"

	"example.org/snapd/client"
)

// A release job on another machine freezes the packages that a build downloaded, and
// moves a channel to the freeze.
func Example() {
	ctx := context.Background()
	token, err := os.ReadFile("release.token")
	if err != nil {
		log.Fatal(err)
	}
	c, err := client.Remote("https://mirror.example.org:8443", strings.TrimSpace(string(token)), nil)
	if err != nil {
		log.Fatal(err)
	}
	res, err := c.Freeze(ctx, client.FreezeRequest{Name: "4.1", Recording: "build-4.1"}, func(p client.Progress) {
		fmt.Printf("%s: %d of %d files\n", p.Phase, p.Files, p.FilesTotal)
	})
	var e *client.Error
	if errors.As(err, &e) && e.Code == client.CodeMissing {
		log.Fatalf("upstream no longer has some packages: %v", e)
	}
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.Frozen.Name)
	if _, err := c.ChannelSet(ctx, client.ChannelSet{Name: "stable", Freeze: "4.1"}); err != nil {
		log.Fatal(err)
	}
}
