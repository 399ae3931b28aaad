// Microsoft's Node SDKs against the local hub; run by test_node_sdk.py, which starts the hub and
// passes what it printed in VEDETTE_HUB_CONNECTION, and its CA in NODE_EXTRA_CA_CERTS.

'use strict';

const assert = require('node:assert/strict');
const { on, once } = require('node:events');
const fs = require('node:fs');
const https = require('node:https');
const { X509Certificate, createHmac, randomBytes } = require('node:crypto');
const { after, test } = require('node:test');

const hub = JSON.parse(process.env.VEDETTE_HUB_CONNECTION);

// The SDKs know no port of HTTPS but 443.
https.Agent = class extends https.Agent {
  constructor(options) {
    super({ ...options, port: hub.https_port });
  }
};
https.globalAgent = new https.Agent();

const iothub = require('azure-iothub');
const { Client, Message, ModuleClient } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Mqtt: ProvisioningMqtt } = require('azure-iot-provisioning-device-mqtt');
const rhea = require('rhea');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');

const service = hub.service_connection_string.replace(/(HostName=[^:;]*):\d+/, '$1');
const registry = iothub.Registry.fromConnectionString(service);
const serviceClient = iothub.Client.fromConnectionString(service);

const open = [];
after(() => Promise.all(open.map((client) => client.close().catch(() => {}))));

const key = () => randomBytes(32).toString('base64');

async function createDevice(deviceId) {
  const created = await registry.create({ deviceId });
  return created.responseBody.authentication.symmetricKey.primaryKey;
}

async function connect(kind, connectionString) {
  const client = kind.fromConnectionString(connectionString, Mqtt);
  await client.open();
  open.push(client);
  return client;
}

async function device(deviceId) {
  const primaryKey = await createDevice(deviceId);
  return connect(
    Client,
    `HostName=${hub.mqtt_host};DeviceId=${deviceId};SharedAccessKey=${primaryKey}`
  );
}

async function module(deviceId, moduleId) {
  await createDevice(deviceId);
  await registry.addModule({ deviceId, moduleId });
  const record = (await registry.getModule(deviceId, moduleId)).responseBody;
  const primaryKey = record.authentication.symmetricKey.primaryKey;
  return connect(
    ModuleClient,
    `HostName=${hub.mqtt_host};DeviceId=${deviceId};ModuleId=${moduleId};` +
      `SharedAccessKey=${primaryKey}`
  );
}

// What the hub has stored of a device, once there is something.
async function events(deviceId) {
  const sr = encodeURIComponent(hub.mqtt_host);
  const secret = Buffer.from(service.match(/SharedAccessKey=(.*)$/)[1], 'base64');
  const expiry = Math.floor(Date.now() / 1000) + 600;
  const signature = createHmac('sha256', secret).update(`${sr}\n${expiry}`).digest('base64');
  const token =
    `SharedAccessSignature sr=${sr}&sig=${encodeURIComponent(signature)}&se=${expiry}` +
    '&skn=iothubowner';
  for (let tries = 0; tries < 100; tries++) {
    const [response] = await once(
      https.get({
        host: hub.mqtt_host,
        path: `/vedette/events?device=${deviceId}`,
        headers: { Authorization: token },
      }),
      'response'
    );
    let text = '';
    for await (const chunk of response) text += chunk;
    if (text) return text.trim().split('\n').map(JSON.parse);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`nothing of ${deviceId} was stored`);
}

function report(twin, patch) {
  return new Promise((resolve, reject) =>
    twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()))
  );
}

test('a device in the registry', async () => {
  const [primaryKey, secondaryKey] = [key(), key()];
  const authentication = { symmetricKey: { primaryKey, secondaryKey } };
  await registry.create({ deviceId: 'n-1', authentication });
  const record = (await registry.get('n-1')).responseBody;
  assert.equal(record.authentication.symmetricKey.primaryKey, primaryKey);
  assert.equal(record.connectionState, 'Disconnected');
  await assert.rejects(registry.create({ deviceId: 'n-1' }), { name: 'DeviceAlreadyExistsError' });
  await registry.update({ deviceId: 'n-1', status: 'disabled' });
  assert.equal((await registry.get('n-1')).responseBody.status, 'disabled');
  const listed = (await registry.list()).responseBody;
  assert.ok(listed.some((each) => each.deviceId === 'n-1'));
  await registry.delete('n-1');
  await assert.rejects(registry.get('n-1'), { name: 'DeviceNotFoundError' });
});

test('modules in the registry', async () => {
  await createDevice('n-2');
  await registry.addModule({ deviceId: 'n-2', moduleId: 'm', managedBy: 'somebody' });
  const modules = (await registry.getModulesOnDevice('n-2')).responseBody;
  assert.deepEqual(modules.map((each) => [each.moduleId, each.managedBy]), [['m', 'somebody']]);
  const { responseBody: twin } = await registry.getModuleTwin('n-2', 'm');
  const patch = { properties: { desired: { a: 1 } } };
  const changed = await registry.updateModuleTwin('n-2', 'm', patch, twin.etag);
  assert.equal(changed.responseBody.properties.desired.a, 1);
  await registry.removeModule('n-2', 'm');
  assert.deepEqual((await registry.getModulesOnDevice('n-2')).responseBody, []);
});

test('many devices at once, and what the registry counts', async () => {
  const before = (await registry.getRegistryStatistics()).responseBody.totalDeviceCount;
  const devices = ['n-3-a', 'n-3-b', 'n-3-c'].map((deviceId) => ({ deviceId }));
  const added = (await registry.addDevices(devices)).responseBody;
  assert.deepEqual([added.isSuccessful, added.errors], [true, []]);
  await assert.rejects(registry.addDevices(devices.slice(0, 1)), /"n-3-a".*DeviceAlreadyExists/);
  const disabled = devices.slice(0, 2).map((each) => ({ ...each, status: 'disabled' }));
  assert.equal((await registry.updateDevices(disabled, true)).responseBody.isSuccessful, true);
  const counted = (await registry.getRegistryStatistics()).responseBody;
  assert.equal(counted.totalDeviceCount, before + 3);
  assert.equal(counted.disabledDeviceCount, 2);
  assert.equal((await registry.removeDevices(devices, true)).responseBody.isSuccessful, true);
  assert.equal((await registry.getRegistryStatistics()).responseBody.totalDeviceCount, before);
});

test('a query, page by page', async () => {
  for (const deviceId of ['n-4-a', 'n-4-b', 'n-4-c']) {
    await createDevice(deviceId);
    await registry.updateTwin(deviceId, { tags: { room: { floor: 4 } } }, '*');
  }
  const query = registry.createQuery('SELECT * FROM devices WHERE tags.room.floor = 4', 2);
  const pages = [];
  while (query.hasMoreResults) {
    pages.push((await query.nextAsTwin()).result.map((twin) => twin.deviceId));
  }
  assert.deepEqual(pages, [['n-4-a', 'n-4-b'], ['n-4-c']]);
});

for (const [what, connected] of [
  ['a device', () => device('n-5')],
  ['a module', () => module('n-6', 'm')],
]) {
  const deviceId = what === 'a device' ? 'n-5' : 'n-6';

  test(`${what}: telemetry with its properties, and the twin both ways`, async () => {
    const client = await connected();
    const message = new Message('{"x": 1}');
    message.messageId = 'm 1';
    message.contentType = 'application/json';
    message.contentEncoding = 'utf-8';
    message.properties.add('a b', 'c&d=ü');
    await client.sendEvent(message);
    const [event] = await events(deviceId);
    assert.deepEqual(event.body, { x: 1 });
    assert.equal(event.moduleId, deviceId === 'n-6' ? 'm' : null);
    assert.deepEqual(event.properties, { 'a b': 'c&d=ü' });
    assert.equal(event.systemProperties['$.mid'], 'm 1');
    assert.equal(event.systemProperties['$.ct'], 'application/json');

    const twin = await client.getTwin();
    await report(twin, { r: { s: 1 }, gone: 1 });
    await report(twin, { gone: null });
    // The SDK does not say when it has subscribed to changes: change until one arrives.
    const arrived = [];
    twin.on('properties.desired.d', (value) => arrived.push(value));
    let reported;
    for (let e = 1; !arrived.length; e++) {
      assert.ok(e < 100, 'no change arrived');
      const patch = { properties: { desired: { d: { e } } } };
      const update =
        deviceId === 'n-6'
          ? await registry.updateModuleTwin('n-6', 'm', patch, '*')
          : await registry.updateTwin('n-5', patch, '*');
      ({ reported } = update.responseBody.properties);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.ok(arrived[0].e >= 1);
    assert.deepEqual([reported.r, reported.gone], [{ s: 1 }, undefined]);
  });
}

test('methods', async () => {
  const client = await device('n-7');
  client.onDeviceMethod('collectNow', (request, response) =>
    response.send(207, { got: request.payload })
  );
  const call = { methodName: 'collectNow', payload: { a: [1] }, connectTimeoutInSeconds: 10 };
  const { result } = await serviceClient.invokeDeviceMethod('n-7', call);
  assert.deepEqual(result, { status: 207, payload: { got: { a: [1] } } });
  await createDevice('n-8');
  await assert.rejects(serviceClient.invokeDeviceMethod('n-8', { methodName: 'x' }), {
    name: 'DeviceNotFoundError',
  });
});

test('a method of a module', async () => {
  const client = await module('n-9', 'm');
  client.onMethod('ping', (request, response) => response.send(200, 'pong'));
  const call = { methodName: 'ping', payload: null, connectTimeoutInSeconds: 10 };
  const { result } = await serviceClient.invokeDeviceMethod('n-9', 'm', call);
  assert.deepEqual(result, { status: 200, payload: 'pong' });
});

test('a method that is not answered ends in time', async () => {
  const client = await device('n-10');
  client.onDeviceMethod('silence', () => {});
  const call = { methodName: 'silence', responseTimeoutInSeconds: 5, connectTimeoutInSeconds: 10 };
  await assert.rejects(serviceClient.invokeDeviceMethod('n-10', call));
});

test('messages from the cloud to a device', async () => {
  await createDevice('n-14');
  await serviceClient.open();
  open.push(serviceClient);
  const early = new Message('early');
  early.messageId = 'm1';
  early.properties.add('k', 'v ü');
  await serviceClient.send('n-14', early);
  const { primaryKey } = (await registry.get('n-14')).responseBody.authentication.symmetricKey;
  const client = Client.fromConnectionString(
    `HostName=${hub.mqtt_host};DeviceId=n-14;SharedAccessKey=${primaryKey}`,
    Mqtt
  );
  open.push(client);
  const messages = on(client, 'message');
  await client.open();
  const [first] = (await messages.next()).value;
  assert.equal(first.data.toString(), 'early');
  assert.equal(first.messageId, 'm1');
  assert.equal(first.properties.getValue('k'), 'v ü');
  await client.complete(first);
  await serviceClient.send('n-14', 'late');
  const [second] = (await messages.next()).value;
  assert.equal(second.data.toString(), 'late');
  await client.complete(second);
  await assert.rejects(serviceClient.send('n-none', 'x'), { name: 'DeviceNotFoundError' });
});

test('feedback of messages to a device', async () => {
  await createDevice('n-17');
  const { primaryKey } = (await registry.get('n-17')).responseBody.authentication.symmetricKey;
  await serviceClient.open();
  open.push(serviceClient);
  const { result: feedback } = await serviceClient.getFeedbackReceiver();
  // Within its event: afterwards the SDK has accepted it.
  feedback.once('message', (message) => feedback.abandon(message));
  const batches = on(feedback, 'message');
  const next = async () => JSON.parse((await batches.next()).value[0].data.toString());
  const send = async (id, ack, change) => {
    const message = Object.assign(new Message('x'), { messageId: id, ack, ...change });
    await serviceClient.send('n-17', message);
  };
  await send('late', 'full', { expiryTimeUtc: Date.now() - 1000 });
  const [expired] = await next();
  assert.equal(expired.originalMessageId, 'late');
  assert.equal(expired.statusCode, 'Expired');
  assert.equal(expired.deviceId, 'n-17');
  assert.ok(expired.deviceGenerationId && Date.parse(expired.enqueuedTimeUtc));
  assert.deepEqual(await next(), [expired]);
  await send('silent', 'negative');
  await send('none');
  await send('taken', 'positive');
  const client = Client.fromConnectionString(
    `HostName=${hub.mqtt_host};DeviceId=n-17;SharedAccessKey=${primaryKey}`,
    Mqtt
  );
  open.push(client);
  client.on('message', (message) => client.complete(message));
  await client.open();
  const [success, ...more] = await next();
  assert.equal(success.originalMessageId, 'taken');
  assert.equal(success.statusCode, 'Success');
  assert.deepEqual(more, []);
});

test('nothing goes by AMQP without a token', async () => {
  await createDevice('n-15');
  const connection = rhea.connect({
    host: hub.mqtt_host,
    port: hub.amqps_port,
    transport: 'tls',
  });
  const sender = connection.open_sender('/messages/devicebound');
  await once(sender, 'sendable');
  sender.send({ to: '/devices/n-15/messages/devicebound', body: 'x' });
  const [{ delivery }] = await once(sender, 'rejected');
  assert.equal(delivery.remote_state.error.condition, 'amqp:unauthorized-access');
  const feedback = connection.open_receiver('/messages/serviceBound/feedback');
  const [{ receiver }] = await once(feedback, 'receiver_error');
  assert.equal(receiver.error.condition, 'amqp:unauthorized-access');
  const elsewhere = connection.open_sender('/elsewhere');
  const [context] = await once(elsewhere, 'sender_error');
  assert.equal(context.sender.error.condition, 'amqp:not-found');
  connection.close();
});

test('a wrong key is refused', async () => {
  await createDevice('n-11');
  const client = Client.fromConnectionString(
    `HostName=${hub.mqtt_host};DeviceId=n-11;SharedAccessKey=${key()}`,
    Mqtt
  );
  await assert.rejects(client.open(), { name: 'UnauthorizedError' });
});

test('a device over WebSockets', async () => {
  const primaryKey = await createDevice('n-16');
  const client = Client.fromConnectionString(
    `HostName=${hub.mqtt_host};DeviceId=n-16;SharedAccessKey=${primaryKey}`,
    MqttWs
  );
  await client.setOptions({ mqtt: { webSocketAgent: new https.Agent() } });
  await client.open();
  open.push(client);
  await client.sendEvent(new Message('over WebSockets'));
  assert.equal((await events('n-16'))[0].body, 'over WebSockets');
});

test('a device with a certificate', async () => {
  const cert = fs.readFileSync(process.env.DEVICE_CERTIFICATE, 'utf8');
  const key = fs.readFileSync(process.env.DEVICE_KEY, 'utf8');
  const primaryThumbprint = new X509Certificate(cert).fingerprint256;
  const authentication = { x509Thumbprint: { primaryThumbprint } };
  await registry.create({ deviceId: 'n-13', authentication });
  const client = Client.fromConnectionString(
    `HostName=${hub.mqtt_host};DeviceId=n-13;x509=true`,
    Mqtt
  );
  await client.setOptions({ cert, key });
  await client.open();
  open.push(client);
  await client.sendEvent(new Message('by certificate'));
  assert.equal((await events('n-13'))[0].body, 'by certificate');
});

test('provisioning by group', async () => {
  const groupKey = Buffer.from(hub.dps_group_key, 'base64');
  const own = createHmac('sha256', groupKey).update('n-12').digest('base64');
  const client = ProvisioningDeviceClient.create(
    hub.dps_host,
    hub.dps_scope,
    new ProvisioningMqtt(),
    new SymmetricKeySecurityClient('n-12', own)
  );
  const state = await client.register();
  assert.deepEqual([state.status, state.deviceId], ['assigned', 'n-12']);
  const connected = await connect(
    Client,
    `HostName=${state.assignedHub};DeviceId=${state.deviceId};SharedAccessKey=${own}`
  );
  await connected.sendEvent(new Message('provisioned'));
  assert.equal((await events('n-12'))[0].body, 'provisioned');
});
