{{- define "husk.name" -}}
{{- printf "%s-node" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "husk.selector" -}}
app.kubernetes.io/name: husk
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "husk.labels" -}}
{{ include "husk.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
