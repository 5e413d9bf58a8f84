{{/* The image, with its tag. */}}
{{- define "redis-sidecar.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* The labels that Helm wants on everything. */}}
{{- define "redis-sidecar.labels" -}}
app.kubernetes.io/name: redis-sidecar
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* What each container of a sidecar has; the argument is a dict: root, listen. */}}
{{- define "redis-sidecar.common" -}}
image: {{ include "redis-sidecar.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: ["-c", /etc/redis-sidecar/config/sidecar.toml]
env:
  - {name: SIDECAR_LISTEN__URLS, value: {{ .listen | quote }}}
  - {name: SIDECAR_ADMIN__LISTEN, value: "0.0.0.0:6381"}
  - {name: SIDECAR_ADMIN__TOKEN_FILE, value: /etc/redis-sidecar/secret/admin-token}
  - {name: SIDECAR_UPSTREAM__URL_FILE, value: /etc/redis-sidecar/secret/url}
ports:
  - {name: sidecar-admin, containerPort: 6381}
livenessProbe:
  httpGet: {path: /livez, port: sidecar-admin}
  periodSeconds: 10
readinessProbe:
  httpGet: {path: /readyz, port: sidecar-admin}
  periodSeconds: 5
securityContext:
  runAsNonRoot: true
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  capabilities: {drop: [ALL]}
{{- end }}

{{/*
For an application's own chart: an entry of its initContainers. Its Pods need the volumes of
redis-sidecar.volumes, a securityContext with fsGroup 65532, and a terminationGracePeriodSeconds that
covers drain.timeout.
*/}}
{{- define "redis-sidecar.container" -}}
- name: redis-sidecar
  restartPolicy: Always
  {{- include "redis-sidecar.common" (dict "root" . "listen" .Values.pod.listen) | nindent 2 }}
  startupProbe:
    httpGet: {path: /readyz, port: sidecar-admin}
    periodSeconds: 1
    failureThreshold: 120
  resources: {{- toYaml .Values.pod.resources | nindent 4 }}
  volumeMounts:
    - {name: sidecar-config, mountPath: /etc/redis-sidecar/config, readOnly: true}
    - {name: sidecar-secret, mountPath: /etc/redis-sidecar/secret, readOnly: true}
    {{- if .Values.tlsSecretName }}
    - {name: sidecar-tls, mountPath: /etc/redis-sidecar/tls, readOnly: true}
    {{- end }}
{{- end }}

{{/* The volumes of redis-sidecar.container. */}}
{{- define "redis-sidecar.volumes" -}}
- name: sidecar-config
  configMap: {name: {{ .Release.Name }}}
- name: sidecar-secret
  secret: {secretName: {{ .Values.secretName }}, defaultMode: 0440}
{{- if .Values.tlsSecretName }}
- name: sidecar-tls
  secret: {secretName: {{ .Values.tlsSecretName }}, defaultMode: 0440}
{{- end }}
{{- end }}
