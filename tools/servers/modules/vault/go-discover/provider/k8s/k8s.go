// Package k8s stands in for the provider of the same name.
package k8s

// Provider finds nobody.
type Provider struct{}
