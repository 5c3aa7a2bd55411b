/** The server's configuration once it is checked: what the rest of the server works with. */
import type { AppFolders, TlsSettings } from "@libstorage/model";
import type { EndpointAddress } from "./values.js";

export interface EndpointConfig {
  readonly name: string;
  readonly address: EndpointAddress;
  /** Permissions of a socket file. */
  readonly socketMode: number;
  /** Whether TLS is spoken there. */
  readonly isTls: boolean;
}

export const TOKEN_ALGORITHMS = [
  "HS256",
  "HS384",
  "HS512",
  "RS256",
  "RS384",
  "RS512",
  "ES256",
  "ES384",
  "ES512",
  "PS256",
  "PS384",
  "PS512",
] as const;

export type TokenAlgorithm = (typeof TOKEN_ALGORITHMS)[number];

/** The token check, section 12 of the contract. Absent where there is no check. */
export interface AuthConfig {
  readonly alg: TokenAlgorithm;
  /** The key itself: a shared secret, or a public key in PEM. Never log it. */
  readonly key: string;
  /** Subjects in lower case. */
  readonly allow: ReadonlySet<string>;
  readonly deny: ReadonlySet<string>;
}

export interface ExporterConfig {
  readonly name: string;
  readonly options: unknown;
}

export interface ServiceConfig {
  /** In lower case. */
  readonly name: string;
  /** A name of the table of drivers. */
  readonly driver: string;
  /** The driver's own block, checked by the driver's schema. */
  readonly options: unknown;
  /** How other hosts get the volumes, with the exporter's own block, checked by its schema. */
  readonly exporter?: ExporterConfig;
  /** Through which volumes are served on the server's host, beside that one. */
  readonly exports: readonly ExporterConfig[];
  /** The service's own check after the global one; its keys fall back to the global ones. */
  readonly auth?: AuthConfig;
  /** Whether volumes may have several holders. */
  readonly shareable: boolean;
  /** Whether a second volume of the same name is refused. */
  readonly uniqueNames: boolean;
}

export type LogLevel = "error" | "warn" | "info" | "debug";

export interface LoggingConfig {
  readonly level: LogLevel;
  /** Log files; absent for the process's own streams. */
  readonly stdout?: string;
  readonly stderr?: string;
  readonly httpRequests: boolean;
  readonly httpResponses: boolean;
}

export interface HttpConfig {
  readonly bodyLimitBytes: number;
  readonly maxConnections: number;
  readonly headersTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly keepAliveTimeoutMs: number;
}

export interface QmpConfig {
  readonly socket: string;
  readonly socketFolder: string;
  /** Whether NBD may be served on addresses that other hosts can reach. */
  readonly insecure: boolean;
}

export interface ServerConfig {
  readonly folders: AppFolders;
  /** The files it was read from. */
  readonly sources: readonly string[];
  readonly endpoints: readonly EndpointConfig[];
  /** For TCP endpoints; absent for plain HTTP. */
  readonly tls?: TlsSettings;
  readonly insecure: boolean;
  readonly services: readonly ServiceConfig[];
  readonly auth?: AuthConfig;
  readonly tasks: {
    /** How long a request waits for its task. */
    readonly exeTimeoutMs: number;
    /** How long a finished task is kept. */
    readonly logTimeoutMs: number;
  };
  readonly parseRequestOpts: boolean;
  readonly responseValidation: boolean;
  readonly logging: LoggingConfig;
  readonly journal: { readonly path: string; readonly retentionMs: number };
  readonly http: HttpConfig;
  /** Absent without QMP. */
  readonly qmp?: QmpConfig;
  readonly hypervisor: {
    /** Wildcards, as of fnmatch, of the files that hypervisors may use. */
    readonly fileLocations: readonly string[];
  };
  /** What the files set, for `/help/config`: keys in lower case, secrets taken out. */
  readonly settings: Readonly<Record<string, unknown>>;
}
