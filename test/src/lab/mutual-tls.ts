/** Mutual TLS between a service on host `a` and its client on host `b`: files, and what configurations say of them. */
import type { TlsSettings } from "@libstorage/model";
import { certificates } from "./certificates.js";
import type { Hosts } from "./network.js";

const TLS = "/etc/libstorage/tls";

/** Of this project's programs, on either host. */
export const CONFIG = "/etc/libstorage/config.yml";

/** Lines of the server's section `libstorage`. */
const SERVER_TLS = `  tls:
    certFile: ${TLS}/server.crt
    keyFile: ${TLS}/server.key
    trustedCertsFile: ${TLS}/cacerts
    clientCertRequired: true
`;

/** Its configuration, up to the services that come below it, indented by six. */
export const SERVER = `libstorage:
${SERVER_TLS}  server:
    endpoints:
      hosts:
        address: tcp://:7979
      local:
        address: unix:///run/libstorage/libstorage.sock
    services:
`;

/** The client's configuration, up to further keys of `libstorage`. */
export function clientConfig(service: string): string {
  return `libstorage:
  host: https://a:7979
  service: ${service}
  tls:
    certFile: ${TLS}/b.crt
    keyFile: ${TLS}/b.key
    trustedCertsFile: ${TLS}/cacerts
`;
}

/** For a client that reads no configuration. */
export const CLIENT: { readonly host: string; readonly tls: TlsSettings } = {
  host: "tcp://a:7979",
  tls: {
    certFile: `${TLS}/b.crt`,
    keyFile: `${TLS}/b.key`,
    trustedCertsFile: `${TLS}/cacerts`,
    clientCertRequired: false,
    verifyChain: true,
    verifyKnownHosts: false,
    knownHostsFiles: [],
  },
};

export async function giveCertificates({ a, b }: Hosts): Promise<void> {
  const files = certificates();
  for (const name of ["server.crt", "server.key", "cacerts"])
    await a.write(`${TLS}/${name}`, files(name), "600");
  for (const name of ["b.crt", "b.key", "cacerts"])
    await b.write(`${TLS}/${name}`, files(name), "600");
}
