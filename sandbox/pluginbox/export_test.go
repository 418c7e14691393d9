package pluginbox

// Pause is pause.
var Pause = pause

// Pid returns the number of the plugin's process; 0: there is none.
func (b *Box) Pid() int {
	if p := b.current(); p != nil {
		return p.run.pid()
	}
	return 0
}

// Sockets returns the directory of the plugin's socket.
func (b *Box) Sockets() string { return b.current().run.sockets }
