/** `libstorage-server tls`: a CA of one's own, certificates for both sides, fingerprints. */
import { X509Certificate } from "node:crypto";
import { readFileSync, readdirSync, statSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { StorageError, formatKnownHost, normalFingerprint, parseAddress } from "@libstorage/model";
import type { Address } from "@libstorage/model";
import { openSource } from "../config/source.js";
import { addCertificate, ensureSet } from "../tls/certificate-set.js";
import type { Made, SetOptions } from "../tls/certificate-set.js";
import { EXIT, UsageError, isSet, tableOf, textOf, textsOf } from "./command.js";
import type { Command, Input } from "./command.js";

const DEFAULT_DAYS = 365;
const LOCAL_NAMES = ["localhost", "127.0.0.1", "::1"];

function setOptions(input: Input): SetOptions {
  const text = textOf(input, "days") ?? String(DEFAULT_DAYS);
  const days = Number(text);
  if (!Number.isInteger(days) || days < 1 || days > 3650)
    throw new UsageError(`--days must be a number from 1 to 3650, not ${text}`);
  const hosts = textsOf(input, "host");
  return {
    folder: textOf(input, "folder") ?? openSource({ text: "" }).folders.tls,
    days,
    hosts: hosts.length > 0 ? hosts : [...LOCAL_NAMES, ...ownName()],
  };
}

/** A container's name may be no host name. */
function ownName(): readonly string[] {
  const name = hostname();
  return /^[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?$/.test(name) ? [name] : [];
}

function tell(input: Input, made: readonly Made[]): number {
  if (isSet(input, "json")) input.out(JSON.stringify(made, undefined, 2));
  else for (const { file, what, why } of made) input.out(`${what.padEnd(7)}  ${file}  (${why})`);
  return EXIT.done;
}

async function add(input: Input, side: "server" | "client"): Promise<number> {
  const name = textOf(input, "name") ?? side;
  const made = await addCertificate(side, name, setOptions(input), isSet(input, "force"));
  return tell(input, [made]);
}

interface Shown {
  readonly file: string;
  readonly subject: string;
  readonly names: string;
  readonly notAfter: string;
  readonly fingerprint: string;
}

function certificatesIn(file: string): readonly Shown[] {
  const blocks =
    readFileSync(file, "utf8").match(
      /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g,
    ) ?? [];
  return blocks.map((block) => {
    const certificate = new X509Certificate(block);
    return {
      file,
      subject: certificate.subject.replaceAll("\n", ", "),
      names: (certificate.subjectAltName ?? "").replaceAll(/(?:DNS|IP Address):/g, ""),
      notAfter: new Date(certificate.validTo).toISOString().slice(0, 10),
      fingerprint: normalFingerprint(certificate.fingerprint256) ?? "",
    };
  });
}

function show(input: Input, files: readonly string[]): number {
  const { folder } = setOptions(input);
  const wanted =
    files.length > 0
      ? files
      : readdirSync(folder)
          .filter((name) => name.endsWith(".crt"))
          .toSorted()
          .map((name) => join(folder, name));
  const shown = wanted.flatMap(certificatesIn);
  if (isSet(input, "json")) input.out(JSON.stringify(shown, undefined, 2));
  else {
    const rows = shown.map((one) => [one.file, one.subject, one.names, one.notAfter]);
    input.out(tableOf([["FILE", "SUBJECT", "NAMES", "ENDS"], ...rows]));
  }
  return EXIT.done;
}

/** Asks a server for its certificate, without trusting it. */
function certificateOf(address: Address & { kind: "tcp" }): Promise<X509Certificate> {
  const { host, port } = address;
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      reject(
        new StorageError("unavailable", `no certificate from ${host}:${port}: ${error.message}`),
      );
    };
    const socket = connect({ host, port, rejectUnauthorized: false, timeout: 10_000 }, () => {
      const certificate = socket.getPeerX509Certificate();
      socket.destroy();
      if (certificate === undefined) fail(new Error("it showed none"));
      else resolve(certificate);
    });
    socket.once("error", fail);
    socket.once("timeout", () => socket.destroy(new Error("it does not answer")));
  });
}

async function fingerprint(input: Input, [what, ...more]: readonly string[]): Promise<number> {
  if (what === undefined || more.length > 0)
    throw new UsageError("tls fingerprint: give one certificate file or HOST:PORT");
  const isFile = statSync(what, { throwIfNoEntry: false })?.isFile() === true;
  if (isFile) {
    for (const one of certificatesIn(what)) input.out(one.fingerprint);
    return EXIT.done;
  }
  const address = parseAddress(what);
  if (address.kind === "unix") throw new UsageError(`${what} is no file and no HOST:PORT`);
  const { fingerprint256 } = await certificateOf(address);
  const hex = normalFingerprint(fingerprint256) ?? "";
  input.out(formatKnownHost({ host: address.host, algorithm: "sha256", fingerprint: hex }));
  input.err("compare it with what the server's administrator says before you trust it");
  return EXIT.done;
}

export const tls: Command = {
  name: "tls",
  args: "init | server | client | show [FILE...] | fingerprint FILE|HOST:PORT",
  summary: "Makes and shows certificates for mutual TLS.",
  details: [
    "init         makes CA, server and client certificate where they are missing or end within 30 days",
    "server       makes a server certificate, for the names given with --host",
    "client       makes a client certificate; its --name is what the journal knows the client by",
    "show         lists certificates",
    "fingerprint  prints a fingerprint, for a server as a line for known_hosts",
  ].join("\n"),
  options: {
    folder: { type: "string", value: "FOLDER", meaning: "Where they are; default <etc>/tls." },
    host: {
      type: "string",
      multiple: true,
      value: "NAME",
      meaning: "A name or address that the server is reached under; may be repeated.",
    },
    name: { type: "string", value: "NAME", meaning: "Name of the certificate and of its files." },
    days: { type: "string", value: "N", meaning: `Days that it lasts; default ${DEFAULT_DAYS}.` },
    force: { type: "boolean", meaning: "Replaces a certificate that is there." },
    json: { type: "boolean", meaning: "Prints JSON." },
  },
  async run(input) {
    const [what = "", ...rest] = input.positionals;
    if (rest.length > 0 && what !== "show" && what !== "fingerprint")
      throw new UsageError(`tls ${what}: unexpected argument "${rest[0]}"`);
    switch (what) {
      case "init":
        return tell(input, await ensureSet(setOptions(input)));
      case "server":
      case "client":
        return add(input, what);
      case "show":
        return show(input, rest);
      case "fingerprint":
        return fingerprint(input, rest);
      default:
        throw new UsageError(
          `say init, server, client, show or fingerprint${what === "" ? "" : `, not "${what}"`}`,
        );
    }
  },
};
