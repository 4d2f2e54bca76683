{{/* The release's name where it says servicelink, else both; what is cluster-scoped begins with it. Room for suffixes. */}}
{{- define "servicelink.fullname" -}}
{{- $name := ternary .Release.Name (printf "%s-%s" .Release.Name .Chart.Name) (contains .Chart.Name .Release.Name) -}}
{{- $name | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{- define "servicelink.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "servicelink.fullname" .) }}
{{- end -}}

{{- define "servicelink.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* The operator as the API server knows it. */}}
{{- define "servicelink.username" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "servicelink.serviceAccount" . }}
{{- end -}}

{{/* What the guards are about: first three that the operator meets, then three that users meet. */}}
{{- define "servicelink.guards" -}}
["secrets", "configmaps", "workloads", "verifiers", "links", "policies"]
{{- end -}}

{{- define "servicelink.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "servicelink.labels" -}}
{{ include "servicelink.selector" . }}
app.kubernetes.io/component: operator
app.kubernetes.io/part-of: servicelink
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* CEL: the keys of a binding Secret that are mounted (servicelink_contract.binding). */}}
{{- define "servicelink.bindingKeys" -}}
["type", "provider", "protocol", "uri", "host", "port", "api-key", "api-key-id", "header", "tls.crt", "tls.key", "ca.crt", "private-key", "certificates", "link.json"]
{{- end -}}

{{/* Variables that no link may set (servicelink_core.conflicts). */}}
{{- define "servicelink.reservedVariables" -}}
PATH|HOME|SHELL|IFS|ENV|BASH_ENV|USER|HOSTNAME|TMPDIR|LD_.*|DYLD_.*|.*_PROXY|KUBERNETES_.*|AWS_.*|AZURE_.*|GOOGLE_.*|PYTHON.*|NODE_.*|NPM_.*|JAVA_.*|_JAVA_.*|JDK_.*|CLASSPATH|PERL.*|RUBY.*|GEM_.*|GODEBUG|GOTRACEBACK|DOTNET_.*|COMPLUS_.*|MALLOC_.*|GLIBC_.*|SSL_.*|OPENSSL_.*|CURL_.*|REQUESTS_CA_BUNDLE|GIT_.*|SERVICELINK_.*|SERVICE_BINDING_ROOT
{{- end -}}
