package clients

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
)

// program is the ringmq binary under test: RINGMQ_PROGRAM of the environment, or what TestMain builds.
var program string

// shared are the brokers that most scenarios share, by number of shards; they keep apart by topics and Client
// Identifiers, which begin with the test's name.
var shared struct {
	sync.Mutex
	folder  string
	brokers map[int]*broker
	bench   *bench // nil: brokers run on loopback
}

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	folder, err := os.MkdirTemp("", "ringmq-clients")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(folder)
	shared.folder, shared.brokers, shared.bench = folder, make(map[int]*broker), benchFromEnvironment()
	if program = os.Getenv("RINGMQ_PROGRAM"); program == "" {
		program = filepath.Join(folder, "ringmq")
		if err := build(program); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
	code := m.Run()
	for shards, b := range shared.brokers {
		if err := b.stop(); err != nil {
			fmt.Fprintf(os.Stderr, "the broker with %d shards: %v\n", shards, err)
			code = 1
		}
	}
	return code
}

func build(program string) error {
	arguments := []string{"build", "-o", program}
	if raced() {
		arguments = append(arguments, "-race")
	}
	if out, err := exec.Command("go", append(arguments, "../../cmd/ringmq")...).CombinedOutput(); err != nil {
		return fmt.Errorf("build ringmq: %w\n%s", err, out)
	}
	return nil
}

// raced tells whether the tests were built with -race; then the broker is, too.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// both runs a scenario against a broker with one shard and against one with four.
func both(t *testing.T, scenario func(t *testing.T, b *broker)) {
	t.Parallel()
	for _, shards := range []int{1, 4} {
		t.Run(fmt.Sprintf("shards=%d", shards), func(t *testing.T) {
			t.Parallel()
			scenario(t, sharedBroker(t, shards))
		})
	}
}

func sharedBroker(t *testing.T, shards int) *broker {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if b := shared.brokers[shards]; b != nil {
		return b
	}
	config := filepath.Join(shared.folder, "ringmq.toml")
	words := "sys_interval = \"1s\"\nresponse_information = \"answers/%c\"\n"
	if err := os.WriteFile(config, []byte(words), 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := start("-c", config, "--shards", fmt.Sprint(shards), "--listen", "127.0.0.1:0", "--allow-anonymous")
	if err != nil {
		t.Fatal(err)
	}
	shared.brokers[shards] = b
	return b
}

// name makes a Topic Name or Client Identifier that no other test uses.
func name(t *testing.T, rest string) string {
	return strings.NewReplacer("#", "_", "+", "_").Replace(t.Name()) + "/" + rest
}
