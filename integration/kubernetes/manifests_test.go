// Package kubernetes checks the manifests in deploy/kubernetes against Kubernetes' own types. It is a module of its own, so
// that these are no dependencies of the program. No cluster is asked.
package kubernetes

import (
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"
)

// drain is how long serve takes at most after SIGTERM.
const drain = 8

func TestManifests(t *testing.T) {
	text, err := os.ReadFile("../../deploy/kubernetes/auditstream.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var deployment appsv1.Deployment
	var service corev1.Service
	var budget policyv1.PodDisruptionBudget
	known := map[string]any{"apps/v1 Deployment": &deployment, "v1 Service": &service, "policy/v1 PodDisruptionBudget": &budget}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var kind metav1.TypeMeta
		if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
			t.Fatal(err)
		}
		name := kind.APIVersion + " " + kind.Kind
		target, ok := known[name]
		if !ok {
			t.Fatalf("%s is unknown here, or there twice", name)
		}
		delete(known, name)
		if err := yaml.UnmarshalStrict([]byte(document), target); err != nil { // no field that Kubernetes does not know
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(known) != 0 {
		t.Fatalf("missing: %v", known)
	}

	pod := deployment.Spec.Template
	for what, selector := range map[string]*metav1.LabelSelector{
		"deployment": deployment.Spec.Selector, "budget": budget.Spec.Selector, "service": {MatchLabels: service.Spec.Selector},
		"spread": pod.Spec.TopologySpreadConstraints[0].LabelSelector,
	} {
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil || s.Empty() || !s.Matches(labels.Set(pod.Labels)) {
			t.Errorf("the %s's selector %v does not select the pod's labels %v: %v", what, s, pod.Labels, err)
		}
	}
	if *deployment.Spec.Replicas <= int32(budget.Spec.MaxUnavailable.IntValue()) {
		t.Error("the budget lets all instances go at once")
	}
	c := pod.Spec.Containers[0]
	if p := c.ReadinessProbe.HTTPGet; p.Path != "/readyz" || p.Port.StrVal != c.Ports[0].Name {
		t.Errorf("readiness: %+v", p)
	}
	if p := c.LivenessProbe.HTTPGet; p.Path != "/healthz" || p.Port.StrVal != c.Ports[0].Name {
		t.Errorf("liveness: %+v", p)
	}
	if c.Ports[0].ContainerPort != 8080 || service.Spec.Ports[0].TargetPort.StrVal != c.Ports[0].Name {
		t.Error("the ports do not fit")
	}
	if grace, stop := *pod.Spec.TerminationGracePeriodSeconds, c.Lifecycle.PreStop.Sleep.Seconds; grace <= stop+drain {
		t.Errorf("a grace of %d s is too short for %d s of preStop and %d s of draining", grace, stop, drain)
	}
	// What Pod Security's level "restricted" asks for, and a root file system that is read only.
	s := c.SecurityContext
	if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !*pod.Spec.SecurityContext.RunAsNonRoot ||
		len(s.Capabilities.Drop) != 1 || s.Capabilities.Drop[0] != "ALL" || pod.Spec.SecurityContext.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Errorf("not restricted: %+v %+v", s, pod.Spec.SecurityContext)
	}
}
