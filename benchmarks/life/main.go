// life SOCKET SNAPSHOTTER TIMES: a container's layer is prepared, asked for and removed, again and again, by the client
// that containerd itself uses for a proxy snapshotter. Tells the milliseconds of each life.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"
	"strconv"
	"time"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	"google.golang.org/grpc"
)

const warm = 20 // lives before the clock counts

// else the daemon collects what nobody refers to
var rooted = snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "bench"})

func main() {
	times, err := strconv.Atoi(os.Args[3])
	check(err)
	dial := func(ctx context.Context, address string) (net.Conn, error) { return net.Dial("unix", address) }
	connection, err := grpc.Dial(os.Args[1], grpc.WithInsecure(), grpc.WithBlock(), grpc.WithContextDialer(dial))
	check(err)
	store := proxy.NewSnapshotter(api.NewSnapshotsClient(connection), os.Args[2])
	ctx := namespaces.WithNamespace(context.Background(), "bench")

	base := fmt.Sprintf("base-%d", os.Getpid())
	_, err = store.Prepare(ctx, base+"-key", "", rooted)
	check(err)
	check(store.Commit(ctx, base, base+"-key", rooted))
	for number := 0; number < warm+times; number++ {
		took := live(ctx, store, base)
		if number >= warm {
			fmt.Printf("%.4f\n", took.Seconds()*1000)
		}
	}
	check(store.Remove(ctx, base))
}

func live(ctx context.Context, store snapshots.Snapshotter, base string) time.Duration {
	key := base + "-child"
	started := time.Now()
	_, err := store.Prepare(ctx, key, base, rooted)
	check(err)
	_, err = store.Mounts(ctx, key)
	check(err)
	check(store.Remove(ctx, key))
	return time.Since(started)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
