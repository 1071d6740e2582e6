# auditstream in an image that holds the program and the certificates of public authorities, and nothing else: no shell,
# no package manager, no user but a number.
#
#   docker build -t auditstream --build-arg RELEASE=v1.2.3 .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --env-file auditstream.env -p 8080:8080 auditstream
#
# Both bases can be others, for example where no registry is reachable. The first needs Go, sh and certificates.
ARG BUILDER=golang:1.26
ARG BASE=scratch

FROM ${BUILDER} AS build
WORKDIR /src
COPY . .
ARG RELEASE=
# Downloads what the program is made of and no more: what only tests need never comes here. go.sum says what it must be.
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.release=$RELEASE" -o /out/auditstream ./cmd/auditstream

FROM ${BASE}
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/auditstream /auditstream
# A number: there is no /etc/passwd, and Kubernetes' runAsNonRoot cannot judge a name.
USER 65532:65532
# From here on Go collects garbage sooner. Nine tenths of the container's limit, where there is one.
ENV GOMEMLIMIT=512MiB
EXPOSE 8080
STOPSIGNAL SIGTERM
# Whether the process lives, not whether its database does. It looks where HTTP_ADDR and TLS_CERT_FILE say, which are
# therefore better set as variables than as flags.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["/auditstream", "doctor", "--live"]
ENTRYPOINT ["/auditstream"]
CMD ["serve"]
