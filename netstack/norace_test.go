//go:build !race

package netstack

// raceEnabled says that the race detector makes everything larger and slower.
const raceEnabled = false
