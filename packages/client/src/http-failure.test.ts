import assert from "node:assert/strict";
import { it } from "node:test";
import { failureOfConnection, failureOfReply, failureOfTask, reachOf } from "./http-failure.js";

const reply = (status: number, text: string, headers = {}) => ({ status, headers, text });

it("prefers the exact code of the header to the one of the status", () => {
  const body = '{"message":"m","status":409,"error":{"volumeID":"v"}}';
  const exact = failureOfReply(
    reply(409, body, { "libstorage-errorcode": "already-exists" }),
    "GET /",
    "s",
  );
  assert.equal(exact.code, "already-exists");
  assert.deepEqual(exact.data, { volumeID: "v", status: 409 });
  assert.equal(failureOfReply(reply(409, body), "GET /", "s").code, "aborted");
  const unknown = reply(404, body, { "libstorage-errorcode": "nonsense" });
  assert.equal(failureOfReply(unknown, "GET /", "s").code, "not-found");
});

it("names server and request where the answer says nothing", () => {
  assert.match(
    failureOfReply(reply(500, "oops\nmore"), "GET /x", "s").message,
    /s answered GET \/x with status 500: oops$/,
  );
  assert.match(
    failureOfReply(reply(404, "404 page not found"), "GET /x", "s").message,
    /does not know GET \/x/,
  );
  assert.match(
    failureOfReply(reply(400, "Client sent an HTTP request to an HTTPS server."), "GET /", "s")
      .message,
    /wants TLS/,
  );
});

it("reads the error of a task in both shapes", () => {
  const task = { id: 7, queueTime: 0, state: "error" } as const;
  assert.equal(failureOfTask({ ...task, error: "resource not found" }).code, "not-found");
  const exact = failureOfTask({ ...task, error: { msg: "m", a: 1 }, errorCode: "aborted" });
  assert.deepEqual([exact.code, exact.message, exact.data], ["aborted", "m", { a: 1, task: 7 }]);
  assert.equal(failureOfTask(task).message, "failed without a reason");
});

it("tells what was never sent from what may have arrived", () => {
  const of = (code: string): string => reachOf(Object.assign(new Error("x"), { code }));
  assert.equal(of("ECONNREFUSED"), "not-sent");
  assert.equal(of("ECONNRESET"), "perhaps");
  assert.equal(of("ETIMEDOUT"), "answered");
  assert.equal(of("CERT_HAS_EXPIRED"), "answered");
  assert.equal(reachOf(new Error("socket hang up")), "perhaps");
});

it("gives a next step for each way a connection fails", () => {
  const text = (code: string): string =>
    failureOfConnection(Object.assign(new Error("x"), { code }), "GET /", "tcp://h:1").message;
  for (const [code, step] of [
    ["ENOENT", /Is libstorage-server running\?/],
    ["ECONNREFUSED", /Is libstorage-server running\?/],
    ["EACCES", /group that owns the socket/],
    ["ENOTFOUND", /cannot be resolved/],
    ["CONNECT_TIMEOUT", /firewall/],
    ["CERT_HAS_EXPIRED", /renew it/],
    ["SELF_SIGNED_CERT_IN_CHAIN", /trustedCertsFile/],
    ["ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED", /certFile/],
    ["ERR_SSL_WRONG_VERSION_NUMBER", /tls\.disabled/],
    ["ETIMEDOUT", /look before you repeat it/],
    ["HPE_INVALID_CONSTANT", /does not speak HTTP/],
    ["ECONNRESET", /broke during GET \//],
  ] as const) {
    assert.match(text(code), step, code);
    assert.match(text(code), /tcp:\/\/h:1/, code);
  }
});

it("says of a connection under TLS that broke what the reason may be", () => {
  const error = Object.assign(new Error("x"), { code: "ECONNRESET" });
  assert.match(failureOfConnection(error, "GET /", "tcp://h:1", true).message, /certificate away/);
  assert.doesNotMatch(failureOfConnection(error, "GET /", "tcp://h:1").message, /certificate/);
});
