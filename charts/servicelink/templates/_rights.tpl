{{/* What the operator may do where it acts: everywhere, or in one namespace. `namespaces` is what it may do to Namespaces. */}}
{{- define "servicelink.rights" -}}
- apiGroups: [servicelink.dev]
  resources: [servicelinks, servicelinkpolicies]
  verbs: [get, list, watch]
- apiGroups: [servicelink.dev]
  resources: [servicelinks/status, servicelinkpolicies/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [namespaces]
  verbs: {{ .namespaces | toJson }}
# Verifiers; which ones may be written, the policy …-guard-configmaps says.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, list, watch, create, patch, delete]
# Neither get, list nor watch, which would show everybody's. The policy …-guard-secrets confines the rest to our own, and
# with it an empty patch as a dry run, by which the operator reads one of its own back.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, patch, delete]
# The patch puts a link's binding, and a server's verifier, into the Pods' template.
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [get, list, watch, patch]
- apiGroups: [batch]
  resources: [cronjobs]
  verbs: [get, list, watch, patch]
{{- end }}

{{/* What an administrator installs for the whole cluster, by name, so that readiness can tell whether it is there. */}}
{{- define "servicelink.preflightRights" -}}
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames: [servicelinks.servicelink.dev, servicelinkpolicies.servicelink.dev]
  verbs: [get]
- apiGroups: [admissionregistration.k8s.io]
  resources: [validatingadmissionpolicies, validatingadmissionpolicybindings]
  resourceNames:
  {{- range include "servicelink.guards" . | fromJsonArray }}
  - {{ include "servicelink.fullname" $ }}-guard-{{ . }}
  {{- end }}
  verbs: [get]
{{- end }}

{{- define "servicelink.viewerRights" -}}
- apiGroups: [servicelink.dev]
  resources: [servicelinks, servicelinkpolicies]
  verbs: [get, list, watch]
- apiGroups: [servicelink.dev]
  resources: [servicelinks/status, servicelinkpolicies/status]
  verbs: [get]
{{- end }}

{{- define "servicelink.editorRights" -}}
- apiGroups: [servicelink.dev]
  resources: [servicelinks, servicelinkpolicies]
  verbs: [get, list, watch, create, update, patch, delete, deletecollection]
- apiGroups: [servicelink.dev]
  resources: [servicelinks/status, servicelinkpolicies/status]
  verbs: [get]
{{- end }}

{{/* A binding of the role of its own name (`kind`, `name`) to the operator, in `namespace`, or cluster-wide without one. */}}
{{- define "servicelink.operatorBinding" -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ .kind }}Binding
metadata:
  name: {{ .name }}
  {{- with .namespace }}
  namespace: {{ . }}
  {{- end }}
  labels:
    {{- include "servicelink.labels" .root | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
- kind: ServiceAccount
  name: {{ include "servicelink.serviceAccount" .root }}
  namespace: {{ .root.Release.Namespace }}
{{- end }}
