/**
 * Every key of the server as a value: its name, how it is written, what it means. Checking, the nearest
 * known key of a misspelled one, and docs/configuration.md are made from this table.
 */
import type * as v from "valibot";
import * as value from "./values.js";
import { TOKEN_ALGORITHMS } from "./server-config.js";

export interface KeySpec<T = unknown> {
  readonly key: string;
  /** How the value is written, for the documentation. */
  readonly type: string;
  readonly schema: v.GenericSchema<unknown, T>;
  /** As it would be written; empty for none. */
  readonly fallback: string;
  readonly meaning: string;
  /** Whether SIGHUP applies a change. */
  readonly isLive: boolean;
  readonly isSecret?: boolean;
  /** Places where it is looked for before its own. */
  readonly before?: readonly string[];
}

function define<T>(spec: KeySpec<T>): KeySpec<T> {
  return spec;
}

const flag = (key: string, meaning: string, more: Partial<KeySpec<boolean>> = {}) =>
  define<boolean>({
    key,
    type: "boolean",
    schema: value.boolean,
    fallback: "false",
    meaning,
    isLive: false,
    ...more,
  });

const span = (key: string, fallback: string, meaning: string, isLive = false) =>
  define<number>({
    key,
    type: "duration",
    schema: fallback === "0s" ? value.duration : value.positiveDuration,
    fallback,
    meaning,
    isLive,
  });

const logging = <T>(spec: Omit<KeySpec<T>, "key" | "before"> & { readonly name: string }) => {
  const { name, ...rest } = spec;
  return define<T>({
    ...rest,
    key: `libstorage.logging.${name}`,
    before: [`libstorage.server.logging.${name}`, `libstorage.server.libstorage.logging.${name}`],
  });
};

export const KEYS = {
  host: define({
    key: "libstorage.host",
    type: "address",
    schema: value.address,
    fallback: "",
    meaning: "Where a server without endpoints listens (and a client dials).",
    isLive: false,
  }),
  autoEndpointMode: define({
    key: "libstorage.server.autoEndpointMode",
    type: "unix or tcp",
    schema: value.choice("unix", "tcp"),
    fallback: "unix",
    meaning: "What a server with neither endpoints nor a host opens.",
    isLive: false,
  }),
  insecure: flag(
    "libstorage.server.insecure",
    "Allows TCP endpoints that other hosts can reach without TLS and client certificates.",
  ),
  socketMode: define({
    key: "libstorage.server.socketMode",
    type: "0600, 0660 or 0666",
    schema: value.socketMode,
    fallback: "0600",
    meaning: "Permissions of socket files, for endpoints that name none of their own.",
    isLive: false,
  }),
  parseRequestOpts: flag(
    "libstorage.server.parseRequestOpts",
    "Copies every member of `opts` over the request's own values.",
    { isLive: true },
  ),
  responseValidation: flag(
    "libstorage.schema.responseValidationEnabled",
    "Checks answers against the schema before they leave.",
    { isLive: true },
  ),
  exeTimeout: span(
    "libstorage.server.tasks.exeTimeout",
    "1m",
    "How long a request waits for its task before it is answered 408; the task goes on.",
    true,
  ),
  logTimeout: span(
    "libstorage.server.tasks.logTimeout",
    "0s",
    "How long a finished task that a request waited for is kept.",
    true,
  ),
  journalPath: define({
    key: "libstorage.server.journal.path",
    type: "folder",
    schema: value.text,
    fallback: "<lib>/journal",
    meaning: "Where the journal of operations is kept.",
    isLive: false,
  }),
  journalRetention: span(
    "libstorage.server.journal.retention",
    "30d",
    "How long finished operations stay in the journal.",
  ),
  bodyLimit: define({
    key: "libstorage.server.http.bodyLimit",
    type: "bytes",
    schema: value.bytes,
    fallback: "1MiB",
    meaning: "The largest request body; a larger one is refused with 413.",
    isLive: true,
  }),
  maxConnections: define({
    key: "libstorage.server.http.maxConnections",
    type: "number",
    schema: value.integer(1, 1_000_000),
    fallback: "4096",
    meaning: "Open connections of one endpoint; further ones are closed at once.",
    isLive: true,
  }),
  headersTimeout: span(
    "libstorage.server.http.headersTimeout",
    "20s",
    "How long a client may take to send the head of a request, and to finish the TLS handshake.",
    true,
  ),
  requestTimeout: span(
    "libstorage.server.http.requestTimeout",
    "60s",
    "How long a client may take to send a whole request.",
    true,
  ),
  keepAliveTimeout: span(
    "libstorage.server.http.keepAliveTimeout",
    "75s",
    "How long an idle connection is kept.",
    true,
  ),
  fileLocations: define<readonly string[]>({
    key: "libstorage.server.hypervisor.fileLocations",
    type: "list",
    schema: value.fileLocations,
    fallback: "",
    meaning:
      "Wildcards of the files and block devices that hypervisors may see and make, such as `/var/lib/xen/images/*.img`; `*` matches no slash.",
    isLive: false,
  }),
  qmpSocket: define({
    key: "libstorage.server.qmp.socket",
    type: "path",
    schema: value.absolutePath,
    fallback: "",
    meaning:
      "A Unix socket (0600) that speaks QMP; with it `POST /qmp` does, too. Without it there is no QMP.",
    isLive: false,
  }),
  qmpSocketFolder: define({
    key: "libstorage.server.qmp.socketFolder",
    type: "folder",
    schema: value.absolutePath,
    fallback: "<run>/qmp",
    meaning: "The only folder in which `nbd-server-start` may make a socket.",
    isLive: false,
  }),
  qmpInsecure: flag(
    "libstorage.server.qmp.insecure",
    "Allows `nbd-server-start` on addresses that other hosts can reach: it asks nobody who he is.",
  ),
  logLevel: logging({
    name: "level",
    type: "error, warn, info or debug",
    schema: value.choice("error", "warn", "info", "debug"),
    fallback: "warn",
    meaning: "The least severe messages that are written.",
    isLive: true,
  }),
  logStdout: logging({
    name: "stdout",
    type: "file",
    schema: value.text,
    fallback: "",
    meaning: "A file for messages below `error` and for request logs, instead of standard error.",
    isLive: true,
  }),
  logStderr: logging({
    name: "stderr",
    type: "file",
    schema: value.text,
    fallback: "",
    meaning: "A file for errors, instead of standard error.",
    isLive: true,
  }),
  httpRequests: logging({
    name: "httpRequests",
    type: "boolean",
    schema: value.boolean,
    fallback: "false",
    meaning: "Logs every request: one line, then what was sent.",
    isLive: true,
  }),
  httpResponses: logging({
    name: "httpResponses",
    type: "boolean",
    schema: value.boolean,
    fallback: "false",
    meaning: "Logs every request: one line, then what was answered.",
    isLive: true,
  }),
} as const;

/** Of one endpoint, below `libstorage.server.endpoints.NAME`. */
export const ENDPOINT_KEYS = {
  address: define({
    key: "address",
    type: "address",
    schema: value.address,
    fallback: "",
    meaning: "Where it listens. Required.",
    isLive: false,
  }),
  socketMode: define({
    key: "socketMode",
    type: "0600, 0660 or 0666",
    schema: value.socketMode,
    fallback: "",
    meaning: "Permissions of the socket file; `libstorage.server.socketMode` when absent.",
    isLive: false,
  }),
} as const;

/** Of the server (`libstorage.server.auth`) and of one service (`….services.NAME.auth`). */
export const AUTH_KEYS = {
  key: define({
    key: "auth.key",
    type: "text or file",
    schema: value.text,
    fallback: "",
    meaning: "The key that tokens are signed with, or the path of a file that holds it.",
    isLive: true,
    isSecret: true,
  }),
  alg: define({
    key: "auth.alg",
    type: "algorithm",
    schema: value.choice(...TOKEN_ALGORITHMS),
    fallback: "HS256",
    meaning: `The algorithm of tokens: ${TOKEN_ALGORITHMS.join(", ")}.`,
    isLive: true,
  }),
  allow: define({
    key: "auth.allow",
    type: "list",
    schema: value.list,
    fallback: "",
    meaning:
      "Subjects that get in; an entry may also be a token or `tag:TOKEN`, of which `sub` counts.",
    isLive: true,
    isSecret: true,
  }),
  deny: define({
    key: "auth.deny",
    type: "list",
    schema: value.list,
    fallback: "",
    meaning: "Subjects that do not get in, even when allowed.",
    isLive: true,
    isSecret: true,
  }),
  disabled: define({
    key: "auth.disabled",
    type: "boolean",
    schema: value.boolean,
    fallback: "false",
    meaning: "Switches the check off.",
    isLive: true,
  }),
} as const;

/** Of one service, below `libstorage.server.services.NAME`. */
export const SERVICE_KEYS = {
  shareable: flag("shareable", "Lets every volume of the service have several holders."),
  uniqueNames: flag("uniqueNames", "Refuses a second volume of the same name."),
} as const;

/** The name of a service's exporter; not looked for further out. */
export const EXPORTER_KEY = "exporter";

/** The names of further exporters of a service, which serve volumes on the server's own host. */
export const EXPORTS_KEY = "exports";

/** The names under which a service's driver is looked for, in this order. */
export const DRIVER_KEYS = ["driver", "libstorage.driver", "libstorage.storage.driver"] as const;

export const TLS_KEY_MEANINGS: Readonly<Record<string, readonly [type: string, meaning: string]>> =
  {
    "": [
      "setting",
      "`true` or `false`; `insecure`: nothing is verified; `verifyPeers`: the peer must be a known host; `HOST ALG FINGERPRINT`: the peer must be this one.",
    ],
    disabled: ["boolean", "Switches TLS off, whatever else is set, at whatever scope."],
    certFile: ["file", "Own certificate, PEM. Default `<tls>/libstorage.crt` if it exists."],
    keyFile: ["file", "Its key, PEM. Default `<tls>/libstorage.key` if it exists."],
    trustedCertsFile: [
      "file",
      "CAs that clients' certificates must lead to. Default `<tls>/cacerts` if it exists.",
    ],
    clientCertRequired: ["boolean", "Refuses clients without a certificate that verifies."],
    serverName: ["text", "Client: the name to look for in the server's certificate."],
    knownHosts: ["file", "Lines `HOST ALG FINGERPRINT`. Default `<tls>/known_hosts` if it exists."],
    verifyPeers: ["boolean", "Known hosts instead of the certificate chain, or the reverse."],
    insecure: ["boolean", "Does not verify the certificate chain."],
  };

/** Keys of other programs that read the same file; the server leaves them alone. */
export const FOREIGN_KEYS = [
  "libstorage.service",
  "libstorage.embedded",
  "libstorage.disabled",
  "libstorage.client.**",
  "libstorage.os.**",
  "libstorage.integration.**",
  "libstorage.http.**",
  "libstorage.device.**",
  "libstorage.executor.**",
  "rexray.**",
  "iscsi.chap.**",
  "iscsi.replacementTimeout",
  "nbd.client",
  "nbd.reconnectSeconds",
  "nbd.certFile",
  "nbd.keyFile",
  "nbd.trustedCertsFile",
  "modules.**",
  "csi.**",
  "docker.**",
  "volume.**",
  "linux.**",
] as const;
