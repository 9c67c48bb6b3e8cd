package main

import (
	"github.com/urfave/cli/v2"
)

// clientFlags are what ringmq pub and ringmq sub have in common.
type clientFlags struct {
	host, unix, url, bind            string
	port                             int
	id, idPrefix                     string
	username, password, passwordFile string
	version                          string
	keepAlive                        int
	connectTimeout, wait             seconds
	keepSession                      bool
	sessionExpiry                    string
	properties                       list
	willTopic, willPayload           string
	willQoS                          int
	willRetain                       bool
	cafile, capath, cert, key        string
	servername, tlsALPN, tlsVersion  string
	insecure, osCertificates         bool
	debug, quiet, help, noDelay      bool
	topics                           list
	qos                              int
	format                           string
	verbose, noNewline, pretty       bool
	given                            map[string]bool
}

// The groups of flags in the help, in its order.
const (
	groupMessage    = "Message"
	groupTopics     = "Subscriptions"
	groupOutput     = "Output"
	groupRequest    = "Request and response (5.0)"
	groupEnd        = "When to end"
	groupConnection = "Connection"
	groupSession    = "Session"
	groupWill       = "Will"
	groupTLS        = "TLS (on with any of these, with mqtts:// and on port 8883)"
	groupOther      = "Other"
)

// passwordVariable is the environment variable with the password.
const passwordVariable = "RINGMQ_PASSWORD"

func (o *clientFlags) connectionFlags() []cli.Flag {
	g := groupConnection
	return []cli.Flag{
		&cli.StringFlag{Name: "host", Aliases: []string{"h"}, Destination: &o.host, Value: "localhost", Category: g, Usage: "the broker's `HOST`: a name, an IPv4 or an IPv6 address"},
		&cli.IntFlag{Name: "port", Aliases: []string{"p"}, Destination: &o.port, DefaultText: "1883, with TLS 8883", Category: g, Usage: "the broker's `PORT`"},
		&cli.StringFlag{Name: "url", Aliases: []string{"L"}, Destination: &o.url, Category: g, Usage: "all at once: `URL` is mqtt[s]://[USER[:PASSWORD]@]HOST[:PORT][/TOPIC]"},
		&cli.StringFlag{Name: "unix", Destination: &o.unix, Category: g, Usage: "connect to the socket at `PATH` instead"},
		&cli.StringFlag{Name: "bind", Aliases: []string{"A"}, Destination: &o.bind, Category: g, Usage: "connect from this `ADDRESS` of the machine"},
		&cli.StringFlag{Name: "username", Aliases: []string{"u"}, Destination: &o.username, Category: g, Usage: "User `NAME`"},
		&cli.StringFlag{Name: "pw", Aliases: []string{"P"}, Destination: &o.password, Category: g, EnvVars: []string{passwordVariable}, Usage: "`PASSWORD`; other users of this machine can see it here"},
		&cli.StringFlag{Name: "password-file", Destination: &o.passwordFile, Category: g, Usage: "take the password from the first line of `FILE`"},
		&cli.StringFlag{Name: "version", Aliases: []string{"V", "protocol-version"}, Destination: &o.version, Value: "5", Category: g, Usage: "MQTT `VERSION`: 5, or 311 for 3.1.1"},
		&cli.IntFlag{Name: "keepalive", Aliases: []string{"k"}, Destination: &o.keepAlive, Value: 60, Category: g, Usage: "Keep Alive in `SECONDS`; 0 is none"},
		&cli.GenericFlag{Name: "connect-timeout", Value: &o.connectTimeout, DefaultText: "10", Category: g, Usage: "give up connecting, or an answer to SUBSCRIBE, after `SECONDS`"},
		&cli.BoolFlag{Name: "nodelay", Destination: &o.noDelay, Category: g, Usage: "is always on; taken because mosquitto_pub takes it"},
	}
}

func (o *clientFlags) sessionFlags() []cli.Flag {
	g := groupSession
	return []cli.Flag{
		&cli.StringFlag{Name: "id", Aliases: []string{"i"}, Destination: &o.id, DefaultText: "a random one", Category: g, Usage: "Client `IDENTIFIER`"},
		&cli.StringFlag{Name: "id-prefix", Aliases: []string{"I"}, Destination: &o.idPrefix, Category: g, Usage: "Client Identifier of `PREFIX` and the number of this process"},
		&cli.BoolFlag{Name: "disable-clean-session", Aliases: []string{"c"}, Destination: &o.keepSession, Category: g, Usage: "take up the Session of before, and keep it for ever or for -x (needs -i)"},
		&cli.StringFlag{Name: "session-expiry-interval", Aliases: []string{"x"}, Destination: &o.sessionExpiry, DefaultText: "0, with -c -1", Category: g, Usage: "keep the Session for `SECONDS` after the end; -1 is for ever (5.0)"},
		&cli.GenericFlag{Name: "property", Aliases: []string{"D"}, Value: &o.properties, Category: g, Usage: "a property of 5.0 (repeatable): `COMMAND PROPERTY VALUE`, or COMMAND user-property NAME VALUE"},
	}
}

func (o *clientFlags) willFlags() []cli.Flag {
	g := groupWill
	return []cli.Flag{
		&cli.StringFlag{Name: "will-topic", Destination: &o.willTopic, Category: g, Usage: "publish to `TOPIC` when the connection breaks"},
		&cli.StringFlag{Name: "will-payload", Destination: &o.willPayload, Category: g, Usage: "`TEXT` of the Will; none is an empty one"},
		&cli.IntFlag{Name: "will-qos", Destination: &o.willQoS, Category: g, Usage: "`QOS` of the Will: 0, 1 or 2"},
		&cli.BoolFlag{Name: "will-retain", Destination: &o.willRetain, Category: g, Usage: "the Will is a Retained Message"},
	}
}

func (o *clientFlags) tlsFlags() []cli.Flag {
	g := groupTLS
	return []cli.Flag{
		&cli.StringFlag{Name: "cafile", Destination: &o.cafile, Category: g, Usage: "trust the authorities in `FILE` (PEM)"},
		&cli.StringFlag{Name: "capath", Destination: &o.capath, Category: g, Usage: "trust the authorities in the files of `FOLDER` (PEM)"},
		&cli.BoolFlag{Name: "tls-use-os-certs", Destination: &o.osCertificates, Category: g, Usage: "trust this machine's authorities too, or alone (as without --cafile and --capath)"},
		&cli.StringFlag{Name: "cert", Destination: &o.cert, Category: g, Usage: "certificate to show the broker, in `FILE` (PEM)"},
		&cli.StringFlag{Name: "key", Destination: &o.key, Category: g, Usage: "its private key, in `FILE` (PEM)"},
		&cli.StringFlag{Name: "servername", Destination: &o.servername, DefaultText: "the host", Category: g, Usage: "`NAME` that the broker's certificate must have"},
		&cli.StringFlag{Name: "tls-alpn", Destination: &o.tlsALPN, Category: g, Usage: "ask for `PROTOCOL` on a port that serves several"},
		&cli.StringFlag{Name: "tls-version", Destination: &o.tlsVersion, DefaultText: "the best both know", Category: g, Usage: "`VERSION`: tlsv1.2 or tlsv1.3"},
		&cli.BoolFlag{Name: "insecure", Destination: &o.insecure, Category: g, Usage: "for tests only: take any name, and with none of the flags above any certificate"},
	}
}

func (o *clientFlags) printFlags(g string) []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Destination: &o.verbose, Category: g, Usage: "print topic and payload"},
		&cli.StringFlag{Name: "format", Aliases: []string{"F"}, Destination: &o.format, Category: g, Usage: "print by `FORMAT`, see above"},
		&cli.BoolFlag{Name: "pretty", Destination: &o.pretty, Category: g, Usage: "print the JSON of %j and %J on several lines"},
		&cli.BoolFlag{Name: "no-newline", Aliases: []string{"N"}, Destination: &o.noNewline, Category: g, Usage: "no end of line behind a message"},
	}
}

func (o *clientFlags) otherFlags() []cli.Flag {
	g := groupOther
	return []cli.Flag{
		&cli.BoolFlag{Name: "debug", Aliases: []string{"d"}, Destination: &o.debug, Category: g, Usage: "say on standard error what is done"},
		&cli.BoolFlag{Name: "quiet", Destination: &o.quiet, Category: g, Usage: "no errors on standard error, only the exit code, once the flags are good"},
		&cli.BoolFlag{Name: "help", Destination: &o.help, Category: g, Usage: "show this help"},
	}
}
