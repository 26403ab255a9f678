package sign

import "crypto/rsa"

// EncodeArmor lets fuzzing reach what stands in armor.
var EncodeArmor = encodeArmor

// Dearmor returns the first armored block's content.
func Dearmor(data []byte) []byte {
	b, _, err := nextArmor(data)
	if err != nil {
		panic(err)
	}
	return b.body
}

// RSAKey gives tests the key, to make signatures that this package does not.
func RSAKey(k *PrivateKey) *rsa.PrivateKey { return k.secrets[k.cert.fpr].PrivateKey.(*rsa.PrivateKey) }
