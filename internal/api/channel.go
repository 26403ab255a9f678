package api

import "time"

// ChannelSet is `snapctl channel set`.
type ChannelSet struct {
	Name            string `json:"name"`
	Freeze          string `json:"freeze"` // or another channel: the freeze that it shows
	AllowMissing    bool   `json:"allow_missing,omitempty"`
	AllowInfoChange bool   `json:"allow_info_change,omitempty"`
}

// ChannelRef names a channel.
type ChannelRef struct {
	Name string `json:"name"`
}

// Channel is one channel.
type Channel struct {
	Name    string           `json:"name"`
	Freeze  string           `json:"freeze"`
	Moved   time.Time        `json:"moved"` // the date of its Release files
	By      string           `json:"by,omitempty"`
	Key     string           `json:"key"` // fingerprint of the key that signed the Release files
	URL     string           `json:"url"`
	Mirrors []string         `json:"mirrors"`
	Earlier []ChannelEarlier `json:"earlier"` // freezes whose files are still served, newest first
}

// ChannelEarlier is a freeze that a channel showed.
type ChannelEarlier struct {
	Freeze string    `json:"freeze"`
	Until  time.Time `json:"until"` // until then the freeze is served and cannot be removed
}

// ChannelResult is the outcome of `snapctl channel set`.
type ChannelResult struct {
	Channel  Channel  `json:"channel"`
	Moved    bool     `json:"moved"` // false: the channel already showed the freeze
	From     string   `json:"from,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// ChannelList is `snapctl channel list`.
type ChannelList struct {
	Channels []Channel `json:"channels"`
}

// ChannelHistory is `snapctl channel history`, newest first.
type ChannelHistory struct {
	Name  string        `json:"name"`
	Moves []ChannelMove `json:"moves"`
}

// ChannelMove is one move of a channel.
type ChannelMove struct {
	Moved  time.Time `json:"moved"`
	Freeze string    `json:"freeze,omitempty"` // "": the channel was removed
	From   string    `json:"from,omitempty"`   // "": it showed nothing
	By     string    `json:"by,omitempty"`
}
