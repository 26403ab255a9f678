package s3

import (
	"os"
	"sync"
	"time"

	"github.com/minio/minio-go/v7/pkg/credentials"
)

// credentialsOf reads credentials from a file or, without one, from the usual places of
// AWS programs: the environment, the shared file, the machine's role.
func credentialsOf(file string) *credentials.Credentials {
	if file != "" {
		return credentials.New(&fileCredentials{name: file})
	}
	return credentials.NewChainCredentials([]credentials.Provider{
		&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}, &credentials.IAM{},
	})
}

// fileCredentials reads a file again when it has changed, because short-lived credentials
// are replaced while snapd runs.
type fileCredentials struct {
	name string
	mu   sync.Mutex
	read time.Time // modification time of what was read
}

// RetrieveWithCredContext implements credentials.Provider.
func (f *fileCredentials) RetrieveWithCredContext(cc *credentials.CredContext) (credentials.Value, error) {
	st, err := os.Stat(f.name)
	if err != nil {
		return credentials.Value{}, err
	}
	v, err := (&credentials.FileAWSCredentials{Filename: f.name}).RetrieveWithCredContext(cc)
	if err != nil {
		return v, err
	}
	f.mu.Lock()
	f.read = st.ModTime()
	f.mu.Unlock()
	return v, nil
}

// Retrieve implements credentials.Provider.
func (f *fileCredentials) Retrieve() (credentials.Value, error) {
	return f.RetrieveWithCredContext(nil)
}

// IsExpired implements credentials.Provider.
func (f *fileCredentials) IsExpired() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	st, err := os.Stat(f.name)
	return err == nil && !st.ModTime().Equal(f.read) // a file that is gone is kept in mind
}
