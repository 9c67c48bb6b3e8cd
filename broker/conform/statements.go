package conform

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/ringmq/ringmq/broker/packet"
)

// StatementsFile is statements.md, the table of all normative statements.
//
//go:embed statements.md
var StatementsFile string

// Whom a statement concerns.
const (
	Server  = "server"
	Client  = "client"
	Both    = "both"
	Neither = "none" // it cannot be broken here
)

// Statement is a row of the table.
type Statement struct {
	Version packet.Version
	ID      string // such as MQTT-3.1.0-1
	Whom    string
	Says    string   // in short, in our words
	Proofs  []string // see statements.md
	WhyNot  string   // why nothing proves it
}

// Statements reads the table.
func Statements() ([]Statement, error) { return parseStatements(StatementsFile) }

func parseStatements(text string) (list []Statement, err error) {
	version, number := packet.Version(0), 0
	for said := range strings.Lines(text) {
		number++
		said = strings.TrimSpace(said)
		if name, found := strings.CutPrefix(said, "## MQTT "); found {
			for _, v := range versions() {
				if v.String() == name {
					version = v
				}
			}
			continue
		}
		if !strings.HasPrefix(said, "| MQTT-") {
			continue
		}
		cells := strings.Split(strings.Trim(said, "|"), " | ")
		if len(cells) != statementColumns || version == 0 {
			return nil, fmt.Errorf("statements.md:%d: a row has %d columns, and stands below a version", number, statementColumns)
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		s := Statement{Version: version, ID: cells[0], Whom: cells[1], Says: cells[2], WhyNot: cells[4]}
		for proof := range strings.SplitSeq(cells[3], "; ") {
			if proof != "" {
				s.Proofs = append(s.Proofs, proof)
			}
		}
		list = append(list, s)
	}
	return list, nil
}

const statementColumns = 5

// HasConversation says whether a conversation proves it, here and at any other broker.
func (s Statement) HasConversation() bool {
	for _, proof := range s.Proofs {
		if !strings.HasPrefix(proof, "scene ") && !strings.HasPrefix(proof, "test ") {
			return true
		}
	}
	return false
}

// Row is the statement as a line of the table.
func (s Statement) Row() string {
	return fmt.Sprintf("| %s | %s | %s | %s | %s |", s.ID, s.Whom, s.Says, strings.Join(s.Proofs, "; "), s.WhyNot)
}
