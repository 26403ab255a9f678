package sign

import "crypto/rsa"

// RSAKey gives tests the key, to make signatures that this package does not.
func RSAKey(k *PrivateKey) *rsa.PrivateKey { return k.secrets[k.cert.fpr].PrivateKey.(*rsa.PrivateKey) }
