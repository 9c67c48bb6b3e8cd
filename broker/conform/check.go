package conform

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

//go:embed conversations/*.txt
var conversations embed.FS

// Check is a conversation in one protocol version.
type Check struct {
	Name       string // FILE/TITLE, the same in both versions
	Version    packet.Version
	Statements []string // that hold if the conversation goes as written, such as "MQTT-3.1.0-1"

	needs []string // features that a broker may say it does not have
	file  string
	lines []line
}

// line is a command or an expectation.
type line struct {
	number int
	text   string
}

// Checks are all conversations, each once for every version that its head names.
func Checks() ([]Check, error) {
	entries, err := conversations.ReadDir("conversations")
	if err != nil {
		return nil, err
	}
	var list []Check
	for _, e := range entries {
		text, err := conversations.ReadFile("conversations/" + e.Name())
		if err != nil {
			return nil, err
		}
		more, err := parse(e.Name(), string(text))
		if err != nil {
			return nil, err
		}
		list = append(list, more...)
	}
	return list, nil
}

// parse cuts a file into conversations at the lines that begin with "===".
func parse(file, text string) (list []Check, err error) {
	var open *conversation
	number := 0
	for said := range strings.Lines(text) {
		number++
		said = strings.TrimSpace(said)
		if title, found := strings.CutPrefix(said, "==="); found {
			if list, err = open.addTo(list); err != nil {
				return nil, err
			}
			name := strings.TrimSuffix(path.Base(file), ".txt") + "/" + strings.TrimSpace(title)
			open = &conversation{file: file, name: name, number: number, proves: map[packet.Version][]string{}}
			continue
		}
		if said == "" || said[0] == '#' {
			continue
		}
		if open == nil {
			return nil, fmt.Errorf("%s:%d: stands before the first conversation", file, number)
		}
		if err := open.take(number, said); err != nil {
			return nil, fmt.Errorf("%s:%d: %w", file, number, err)
		}
	}
	return open.addTo(list)
}

// conversation is what stands under one title.
type conversation struct {
	file, name string
	number     int
	proves     map[packet.Version][]string
	needs      []string
	lines      map[packet.Version][]line
}

// versions are those that conversations play in.
func versions() []packet.Version { return []packet.Version{packet.V311, packet.V50} }

func (c *conversation) take(number int, said string) error {
	word, rest, _ := strings.Cut(said, " ")
	switch word {
	case "proves":
		return c.prove(rest)
	case "needs":
		for _, name := range strings.Fields(rest) {
			if !slices.Contains(features(), name) {
				return fmt.Errorf("there is no feature %q", name)
			}
			c.needs = append(c.needs, name)
		}
		return nil
	}
	if c.lines == nil {
		c.lines = map[packet.Version][]line{}
	}
	for _, v := range versions() {
		// "5.0: …" is said in that version only.
		own, found := strings.CutPrefix(said, v.String()+": ")
		others := slices.ContainsFunc(versions(), func(o packet.Version) bool { return o != v && strings.HasPrefix(said, o.String()+": ") })
		if found || !others {
			c.lines[v] = append(c.lines[v], line{number, own})
		}
	}
	return nil
}

// prove reads "VERSION: N…"; each N stands for MQTT-N.
func (c *conversation) prove(text string) error {
	name, ids, _ := strings.Cut(text, ":")
	for _, v := range versions() {
		if v.String() != name {
			continue
		}
		if c.proves[v] == nil {
			c.proves[v] = []string{}
		}
		for _, id := range strings.Fields(ids) {
			c.proves[v] = append(c.proves[v], "MQTT-"+id)
		}
		return nil
	}
	return fmt.Errorf("proves %s: want \"proves 3.1.1: N…\" or \"proves 5.0: N…\"", text)
}

func (c *conversation) addTo(list []Check) ([]Check, error) {
	if c == nil {
		return list, nil
	}
	if len(c.proves) == 0 || len(c.lines) == 0 {
		return nil, fmt.Errorf("%s:%d: %s proves nothing, or says nothing", c.file, c.number, c.name)
	}
	for _, v := range versions() {
		if ids, plays := c.proves[v]; plays {
			list = append(list, Check{Name: c.name, Version: v, Statements: ids, needs: c.needs, file: c.file, lines: c.lines[v]})
		}
	}
	return list, nil
}

// features are what a broker may say in CONNACK of 5.0 that it does not have.
func features() []string {
	return []string{"qos1", "qos2", "retain", "wildcard", "subid", "shared", "alias"}
}

// lacks names the first feature that a check needs and a broker's CONNACK says it does not have.
func (c *Check) lacks(connack *heard) string {
	if c.Version != packet.V50 {
		return ""
	}
	for _, name := range c.needs {
		if slices.Contains(connack.missing, name) {
			return name
		}
	}
	return ""
}
