package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"example.org/snapd/internal/latency"
	"example.org/snapd/internal/meta"
	"example.org/snapd/internal/meta/compact"
	"example.org/snapd/internal/silent"
)

// Options says where the database is, and has settings for tests.
type Options struct {
	// URL is postgres://USER@HOST:PORT/DATABASE?PARAMETERS, without a password.
	URL string
	// Password is the user's. If it is empty, the usual environment variables and files
	// of PostgreSQL apply.
	Password string
	// Connections limits the open connections; 0: 16.
	Connections int32
	// Fault is called before each commit, for tests. An error makes the commit fail,
	// after it has taken effect if apply is true.
	Fault func(op string) (apply bool, err error)
	// Twice makes each function that runs in a transaction run twice, for tests. The
	// first run has no effect.
	Twice bool
	// Latency counts transactions; nil: not counted.
	Latency *latency.Metadata
	// Unchanged refuses an older schema with meta.ErrVersion instead of converting it.
	Unchanged bool
	// Page limits the entries that one transaction of a collection deletes; 0: 2000.
	Page int
}

// Store is the metadata in one database.
type Store struct {
	pool    *pgxpool.Pool
	o       Options
	indices sync.Map // number of an index -> indexInfo, which never changes
	zr      *compact.Decoder
}

// Times after which a session or its connection is abandoned.
const (
	connectTime   = 10 * time.Second
	statementTime = 60 * time.Second
	lockTime      = 20 * time.Second
	idleTime      = 60 * time.Second // without a statement, within a transaction
	silenceTime   = 15 * time.Second // without an answer from the other machine
)

const (
	connections = 16
	spanPage    = 2000
)

//go:embed migrations/*.sql
var migrations embed.FS

// Open opens the database at a URL and migrates its schema to the present version.
// ErrVersion if its schema is newer.
func Open(ctx context.Context, o Options) (*Store, error) {
	cfg, err := pgxpool.ParseConfig(o.URL)
	if err != nil {
		return nil, errors.New("metadata: the URL of the database is not valid") // err may quote a password
	}
	where := fmt.Sprintf("metadata postgres://%s:%d/%s", cfg.ConnConfig.Host, cfg.ConnConfig.Port, cfg.ConnConfig.Database)
	if o.Password != "" {
		cfg.ConnConfig.Password = o.Password
	}
	if o.Connections == 0 {
		o.Connections = connections
	}
	if o.Page == 0 {
		o.Page = spanPage
	}
	if o.Latency == nil {
		o.Latency = new(latency.Metadata)
	}
	cfg.MaxConns = o.Connections
	cfg.ConnConfig.ConnectTimeout = connectTime
	for name, value := range map[string]string{
		"application_name": "snapd", "synchronous_commit": "on", "timezone": "UTC", "bytea_output": "hex", "default_transaction_isolation": "read committed",
		"statement_timeout": millis(statementTime), "lock_timeout": millis(lockTime),
		"idle_in_transaction_session_timeout": millis(idleTime), "tcp_user_timeout": millis(silenceTime),
	} {
		cfg.ConnConfig.RuntimeParams[name] = value
	}
	dialer := &net.Dialer{KeepAlive: silenceTime / 3, Timeout: connectTime, Control: silent.Limit(silenceTime)}
	cfg.ConnConfig.DialFunc = dialer.DialContext
	s := &Store{o: o}
	if s.zr, err = compact.NewDecoder(); err != nil {
		return nil, err
	}
	if s.pool, err = pgxpool.NewWithConfig(ctx, cfg); err != nil {
		return nil, fmt.Errorf("%s: %w", where, mapped(err))
	}
	if err := s.migrate(ctx); err != nil {
		s.pool.Close()
		return nil, fmt.Errorf("%s: %w", where, mapped(err))
	}
	return s, nil
}

func millis(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }

// migrationLock is the advisory lock of a migration.
const migrationLock = 0x736e617064 // "snapd"

// migrate applies the migrations that the database lacks, in one transaction.
func (s *Store) migrate(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	slices.Sort(files)
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		// A migration of large tables takes longer than the timeouts of a request, and so
		// may waiting for another node's migration.
		for _, limit := range []string{"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} {
			if _, err := tx.Exec(ctx, "set local "+limit+" = 0"); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", migrationLock); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, "create table if not exists schema_version (version integer not null)"); err != nil {
			return err
		}
		var have int
		if err := tx.QueryRow(ctx, "select coalesce(max(version), 0) from schema_version").Scan(&have); err != nil {
			return err
		}
		if have > len(files) {
			return fmt.Errorf("%w: schema %d, this program knows %d", meta.ErrVersion, have, len(files))
		}
		if s.o.Unchanged && have < len(files) {
			return fmt.Errorf("%w: schema %d, this program has %d", meta.ErrVersion, have, len(files))
		}
		for i, file := range files[have:] {
			text, err := migrations.ReadFile(file)
			if err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, string(text)); err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if have+i+1 == sourceVersion {
				if err := fillSources(ctx, tx); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			}
			if _, err := tx.Exec(ctx, "insert into schema_version values ($1)", have+i+1); err != nil {
				return err
			}
		}
		return nil
	})
}

// sourceVersion is the schema version that added the column fact.source. fillPage is how
// many of its rows are filled at once.
const (
	sourceVersion = 3
	fillPage      = 5000
)

// fillSources fills fact.source from the documents of the stanzas.
func fillSources(ctx context.Context, tx pgx.Tx) error {
	mirror, after := int32(0), int64(0)
	for more := true; more; {
		// In the order of the primary key, or each page would read the whole table.
		rows, err := tx.Query(ctx, "select mirror, pid, doc from fact where (mirror, pid) > ($1, $2) order by mirror, pid limit $3", mirror, after, fillPage)
		if err != nil {
			return err
		}
		var pids []int64
		var sources [][]byte
		var pid int64
		var doc []byte
		n := 0
		_, err = pgx.ForEachRow(rows, []any{&mirror, &pid, &doc}, func() error {
			n, after = n+1, pid
			f, err := compact.DecodeFact(meta.PID(pid), doc)
			if err != nil {
				return err
			}
			if source := compact.SourceOf(&f.Record); source != "" {
				pids, sources = append(pids, pid), append(sources, []byte(source))
			}
			return nil
		})
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `update fact set source = q.source from unnest($1::bigint[], $2::bytea[]) q (pid, source)
			where fact.mirror = q.pid >> 40 and fact.pid = q.pid`, pids, sources); err != nil {
			return err
		}
		more = n == fillPage
	}
	return nil
}

// Close waits for open transactions and closes the connections.
func (s *Store) Close() error {
	s.pool.Close()
	return nil
}
