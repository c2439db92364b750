// Vault without the plugins that no test needs: its own core, HTTP API, policies, AppRole and KV engine version 2, mounted at secret/.
// The whole of it, with the clouds' and the databases' plugins, takes ten minutes to compile. In memory, unsealed, over plain HTTP.
//
//	vault -address 127.0.0.1:8200 -token fake-root-token
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"

	"github.com/hashicorp/go-hclog"
	kv "github.com/hashicorp/vault-plugin-secrets-kv"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/helper/namespace"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
)

var version = "unknown"

// registry knows the two plugins that are compiled in.
type registry map[string]logical.Factory

func (r registry) Contains(name string, _ consts.PluginType) bool { return r[name] != nil }

func (r registry) Get(name string, _ consts.PluginType) (func() (interface{}, error), bool) {
	factory, ok := r[name]
	return func() (interface{}, error) { return factory, nil }, ok
}

func (r registry) Keys(consts.PluginType) []string { return nil }

func (r registry) DeprecationStatus(name string, _ consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, r[name] != nil
}

func (r registry) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func start(token string) (*vault.Core, error) {
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Info})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return nil, err
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical:           storage,
		Logger:             logger,
		DisableMlock:       true,
		BuiltinRegistry:    registry{"kv": kv.Factory, "approle": approle.Factory},
		LogicalBackends:    map[string]logical.Factory{"kv": kv.Factory},
		CredentialBackends: map[string]logical.Factory{"approle": approle.Factory},
	})
	if err != nil {
		return nil, err
	}
	ctx := namespace.ContextWithNamespace(context.Background(), namespace.RootNamespace)
	shares := &vault.SealConfig{SecretShares: 1, SecretThreshold: 1}
	made, err := core.Initialize(ctx, &vault.InitParams{BarrierConfig: shares})
	if err != nil {
		return nil, err
	}
	if _, err := core.Unseal(made.SecretShares[0]); err != nil {
		return nil, err
	}
	for path, data := range map[string]map[string]interface{}{
		"auth/token/create": {"id": token, "policies": []string{"root"}, "no_parent": true},
		"sys/mounts/secret": {"type": "kv", "options": map[string]string{"version": "2"}},
		"sys/auth/approle":  {"type": "approle"},
	} {
		request := &logical.Request{Operation: logical.UpdateOperation, ClientToken: made.RootToken, Path: path, Data: data}
		if answer, err := core.HandleRequest(ctx, request); err != nil || answer.IsError() {
			return nil, fmt.Errorf("%s: %v %v", path, err, answer)
		}
	}
	return core, nil
}

func main() {
	address := flag.String("address", "127.0.0.1:8200", "where to listen")
	token := flag.String("token", "", "the root token")
	shown := flag.Bool("version", false, "print the version")
	flag.Parse()
	if *shown {
		fmt.Println("Vault", version)
		return
	}
	core, err := start(*token)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.ListenAndServe(*address, vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core})))
}
