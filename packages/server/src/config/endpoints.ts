/** `libstorage.server.endpoints`, section 14 of the contract; and what may be open to other hosts. */
import { statSync } from "node:fs";
import { booleanOf, formatAddress, isLocal, placesOf, readTlsSettings } from "@libstorage/model";
import type { TlsSettings } from "@libstorage/model";
import type { Checker } from "./check.js";
import { required } from "./check.js";
import { ENDPOINT_KEYS, KEYS } from "./keys.js";
import type { EndpointConfig } from "./server-config.js";
import type { ConfigSource } from "./source.js";
import type { EndpointAddress } from "./values.js";

const ENDPOINTS = "libstorage.server.endpoints";

export interface Listening {
  readonly endpoints: readonly EndpointConfig[];
  readonly tls: TlsSettings | undefined;
  readonly insecure: boolean;
}

export function readListening(source: ConfigSource, check: Checker): Listening {
  const tls = readTls(source, check);
  const insecure = check.read(KEYS.insecure, source.server) ?? false;
  const onSockets = booleanOf(source.env["LIBSTORAGE_TLS_SOCKITTOME"]) ?? false;
  const found = readEndpoints(source, check);
  const endpoints = found.map(({ path, ...endpoint }) => {
    const isTls = tls !== undefined && (endpoint.address.kind === "tcp" || onSockets);
    refuseOpen(endpoint.address, isTls ? tls : undefined, insecure, path, check);
    return { ...endpoint, isTls };
  });
  refuseTwice(endpoints, check);
  if (tls !== undefined && endpoints.some(({ isTls }) => isTls)) checkTls(tls, check);
  return { endpoints, tls, insecure };
}

function readTls(source: ConfigSource, check: Checker): TlsSettings | undefined {
  const { settings, problems } = readTlsSettings(source.server, "server", {
    folder: source.folders.tls,
    token: source.folders.token,
    ...(source.folders.user !== undefined && {
      userKnownHosts: `${source.folders.user}/known_hosts`,
    }),
    exists: (path) => statSync(path, { throwIfNoEntry: false })?.isFile() ?? false,
  });
  check.problems.push(...problems);
  return settings;
}

interface Named {
  readonly name: string;
  readonly address: EndpointAddress;
  readonly socketMode: number;
  readonly path: string;
}

function readEndpoints(source: ConfigSource, check: Checker): readonly Named[] {
  const config = source.server;
  const socketMode = required(check.read(KEYS.socketMode, config), KEYS.socketMode);
  // Read even where they do not count, so that a wrong value never waits for its day.
  const host = check.read(KEYS.host, config);
  const isTcp = check.read(KEYS.autoEndpointMode, config) === "tcp";
  const outer = config.scopes.filter((scope) => !scope.startsWith("libstorage"));
  const names = placesOf(outer, ENDPOINTS).flatMap((place) => source.tree.names(place));
  if (names.length > 0)
    return names.flatMap((name) => {
      const places = (key: string): readonly string[] =>
        placesOf(outer, `${ENDPOINTS}.${name}.${key}`);
      const path = `${ENDPOINTS}.${name}.address`;
      if (config.findAt(places("address")) === undefined) {
        check.note(path, "is missing: write tcp://HOST:PORT or unix:///PATH");
        return [];
      }
      const address = check.readAt(ENDPOINT_KEYS.address, config, places("address"));
      if (address === undefined) return [];
      const mode = check.readAt(ENDPOINT_KEYS.socketMode, config, places("socketMode"));
      return [{ name: name.toLowerCase(), address, socketMode: mode ?? socketMode, path }];
    });
  if (host !== undefined) return [{ name: "host", address: host, socketMode, path: KEYS.host.key }];
  const address: EndpointAddress = isTcp
    ? { kind: "tcp", host: "127.0.0.1", port: 0 }
    : { kind: "auto-unix" };
  return [{ name: "auto", address, socketMode, path: KEYS.autoEndpointMode.key }];
}

/** Whether only clients that hold a trusted certificate get in. */
export function isClosed(tls: TlsSettings): boolean {
  if (tls.verifyKnownHosts) return true;
  return tls.clientCertRequired && tls.verifyChain && tls.trustedCertsFile !== undefined;
}

function refuseOpen(
  address: EndpointAddress,
  tls: TlsSettings | undefined,
  insecure: boolean,
  path: string,
  check: Checker,
): void {
  if (address.kind === "auto-unix" || isLocal(address) || insecure) return;
  if (tls !== undefined && isClosed(tls)) return;
  const lacking =
    tls === undefined ? "without TLS" : "without verified client certificates, although with TLS";
  check.note(
    path,
    `${formatAddress(address)} can be reached by other hosts, ${lacking}: anyone there could remove volumes. ` +
      "Set libstorage.tls.certFile, keyFile, trustedCertsFile and clientCertRequired: true " +
      '("libstorage-server tls" makes certificates), or listen on 127.0.0.1, ' +
      "or accept it with libstorage.server.insecure: true",
  );
}

function refuseTwice(endpoints: readonly EndpointConfig[], check: Checker): void {
  const seen = new Map<string, string>();
  for (const { name, address } of endpoints) {
    if (address.kind === "auto-unix" || (address.kind === "tcp" && address.port === 0)) continue;
    const text = formatAddress(address);
    const other = seen.get(text);
    if (other !== undefined)
      check.note(
        `${ENDPOINTS}.${name}.address`,
        `${text} is the address of endpoint ${other} already`,
      );
    seen.set(text, name);
  }
}

function checkTls(tls: TlsSettings, check: Checker): void {
  if (tls.certFile === undefined)
    check.note(
      "libstorage.tls.certFile",
      'TLS is on for a TCP endpoint, but there is no certificate: set certFile and keyFile ("libstorage-server tls init" makes them), or libstorage.tls.disabled: true',
    );
  if (tls.verifyKnownHosts && tls.pinned === undefined && tls.knownHostsFiles.length === 0)
    check.note(
      "libstorage.tls.knownHosts",
      "is missing: peers are to be known hosts, but there is no file of known hosts, so no client could get in",
    );
  if (
    tls.clientCertRequired &&
    tls.verifyChain &&
    !tls.verifyKnownHosts &&
    tls.trustedCertsFile === undefined
  )
    check.note(
      "libstorage.tls.trustedCertsFile",
      "is missing: clientCertRequired needs the CAs that clients' certificates lead to",
    );
}
