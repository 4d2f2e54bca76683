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

{{/* CEL: those of them that are not secret, which may be variables (spec.binding.env). */}}
{{- define "servicelink.variableKeys" -}}
["type", "provider", "protocol", "uri", "host", "port", "api-key-id", "header"]
{{- end -}}

{{/* How variables may be named, and how not (servicelink_core.conflicts). */}}
{{- define "servicelink.variables" -}}
[A-Z_][A-Z0-9_]*
{{- end -}}
{{- define "servicelink.reservedVariables" -}}
SHELL|IFS|ENV|USER|HOSTNAME|BASH_.*|PS[0-9]|LD_.*|DYLD_.*|KUBERNETES_.*|AWS_.*|AZURE_.*|GOOGLE_.*|PYTHON.*|PIP_.*|NODE_.*|NPM_.*|BUN_.*|DENO_.*|JAVA_.*|_JAVA_.*|JDK_.*|GRADLE_.*|PERL.*|RUBY.*|GEM_.*|BUNDLE_.*|GO(DEBUG|TRACEBACK|GC)|DOTNET_.*|COMPLUS_.*|COR_.*|CORECLR_.*|ASPNETCORE_.*|MONO_.*|LUA_.*|ERL_.*|R_(PROFILE|ENVIRON)_.*|JULIA_.*|MALLOC_.*|GLIBC_.*|SSL_.*|OPENSSL_.*|CURL_.*|REQUESTS_CA_BUNDLE|GIT_.*|XDG_.*|SERVICELINK_.*|SERVICE_BINDING_ROOT|.*(_PROXY|PATH|HOME|DIR|DIRS|LIB|LIBS|PRELOAD|OPTS|OPTIONS|ARGS|FLAGS|PARAM|PARAMS|INIT|RC|PROFILE|PROFILER|ENVIRON|COMMAND|SCRIPT|STARTUP|MODULE|MODULES|PLUGIN|PLUGINS|WRAPPER|EDITOR|PAGER)
{{- end -}}

{{/* CEL: what the operator sets for a whole workload. */}}
{{- define "servicelink.ownVariables" -}}
{"SERVICE_BINDING_ROOT": "/bindings", "SERVICELINK_VERIFIER_DIR": "/etc/servicelink/verifier"}
{{- end -}}

{{/* How the names of variables with a plain value end (servicelink_core.api.names). */}}
{{- define "servicelink.suffixes" -}}
_URL|_ADDRESS|_API_KEY_FILE
{{- end -}}

{{/* Where something may be mounted, and where not (servicelink_core.conflicts). */}}
{{- define "servicelink.ownPaths" -}}
/etc/servicelink/(verifier|tls)/[a-z0-9][a-z0-9.-]*|/var/run/servicelink
{{- end -}}
{{- define "servicelink.bindingPaths" -}}
(/[.]*[A-Za-z0-9_-][A-Za-z0-9._-]*)+/[a-z0-9][a-z0-9.-]*
{{- end -}}
{{- define "servicelink.reservedFolders" -}}
/(bin|boot|dev|lib|lib32|lib64|libx32|proc|sbin|sys|usr|(var/)?run/(secrets|servicelink)|etc/servicelink)(/.*)?|/etc(/[^/]*)?
{{- end -}}
