/* Makes a stock mosquitto the front of the local hub.
 *
 * The broker keeps what MQTT is good at: TLS, sessions, keep-alive, takeover, QoS. This plugin adds
 * what Azure IoT Hub does otherwise, with the documented plugin interface of mosquitto 2.0 only:
 *
 *   who may connect      each CONNECT is put to the hub over a Unix socket, with a time limit, and
 *                        with the certificate that the client has shown. The hub answers with the
 *                        session's name, "<token> <path>", which becomes the client's user name: so
 *                        every later event carries the proven identity.
 *   what comes in        each PUBLISH of a device is appended to the spool, a journal that the hub
 *                        reads, *before* the broker acknowledges it: a message that was
 *                        acknowledged survives the death of the broker and of the hub. The broker
 *                        itself routes none of it.
 *   what goes out        the hub publishes on $hub/deliver what one client is to get; $hub/kick
 *                        ends one session.
 *   whose topics         a device publishes and subscribes on its own topics only.
 *
 * The broker does not outlive its hub.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

#define HUB_TIMEOUT_S 2             /* a CONNECT waits for the hub this long, then is refused */
#define PAYLOAD_MAX (256 * 1024)    /* IoT Hub's limit for a message */
#define SPOOL_FILE_MAX (32 << 20)   /* bytes, then the next spool file is begun */
#define SESSION_NAME_MAX 1024
#define QUESTION_MAX (24 * 1024)
#define CERTIFICATE_MAX (12 * 1024) /* bytes of DER */
#define MAGIC 0x31444556u           /* "VED1" */

/* Kinds of record, the same in spool.py. */
enum { PUBLISH = 'P', SUBSCRIBE = 'S', UNSUBSCRIBE = 'U', DISCONNECT = 'D' };

/* What precedes a record's session name, topic and payload in the spool; host byte order. */
struct record {
    uint32_t magic;
    uint32_t payload_len;
    uint64_t time_ms;
    uint16_t session_len;
    uint16_t topic_len;
    uint8_t kind;
    uint8_t qos;
    uint8_t retain;
    uint8_t reserved;
};

static mosquitto_plugin_id_t *self;
static const char *hub_socket;
static const char *spool_dir;
static unsigned long spool_number;
static off_t spool_bytes;
static int spool_fd = -1;
static int hub_fd = -1;
static bool spooled;                /* since the hub was last told */

#define LOG_ERROR(...) mosquitto_log_printf(MOSQ_LOG_ERR, "vedette: " __VA_ARGS__)


/* --- the spool ------------------------------------------------------------------------------- */

static bool spool_open(void)
{
    char path[4096];
    if (spool_fd >= 0) {
        close(spool_fd);
    }
    snprintf(path, sizeof path, "%s/%012lu", spool_dir, spool_number++);
    spool_fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
    spool_bytes = 0;
    if (spool_fd < 0) {
        LOG_ERROR("cannot create %s: %s", path, strerror(errno));
    }
    return spool_fd >= 0;
}

static bool spool_append(int kind, const char *session, const char *topic, const void *payload,
                         uint32_t payload_len, int qos, bool retain)
{
    if (spool_bytes >= SPOOL_FILE_MAX && !spool_open()) {
        return false;
    }
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct record record = {
        .magic = MAGIC,
        .payload_len = payload_len,
        .time_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000,
        .session_len = (uint16_t)strlen(session),
        .topic_len = (uint16_t)strlen(topic),
        .kind = (uint8_t)kind,
        .qos = (uint8_t)qos,
        .retain = retain,
    };
    struct iovec parts[] = {
        {&record, sizeof record},
        {(void *)session, record.session_len},
        {(void *)topic, record.topic_len},
        {(void *)payload, payload_len},
    };
    size_t size = sizeof record + record.session_len + record.topic_len + payload_len;
    ssize_t written = writev(spool_fd, parts, 4);
    if (written != (ssize_t)size) {
        LOG_ERROR("cannot write the spool: %s", written < 0 ? strerror(errno) : "short write");
        if (ftruncate(spool_fd, spool_bytes) != 0) {
            spool_open();  /* what is torn may only stand at a file's end */
        }
        return false;
    }
    spool_bytes += written;
    spooled = true;
    return true;
}


/* --- the hub --------------------------------------------------------------------------------- */

static void hub_close(void)
{
    if (hub_fd >= 0) {
        close(hub_fd);
        hub_fd = -1;
    }
}

static bool hub_connect(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval limit = {.tv_sec = HUB_TIMEOUT_S};
    if (hub_fd >= 0) {
        return true;
    }
    if (strlen(hub_socket) >= sizeof address.sun_path) {
        LOG_ERROR("the path of the hub's socket is too long");
        return false;
    }
    strcpy(address.sun_path, hub_socket);
    hub_fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (hub_fd < 0) {
        return false;
    }
    fcntl(hub_fd, F_SETFD, FD_CLOEXEC);
    setsockopt(hub_fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(hub_fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(hub_fd, (struct sockaddr *)&address, sizeof address) != 0) {
        hub_close();
        return false;
    }
    return true;
}

static bool hub_send(const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        ssize_t n = send(hub_fd, at, size, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

static bool hub_receive(void *data, size_t size)
{
    char *at = data;
    while (size > 0) {
        ssize_t n = recv(hub_fd, at, size, 0);
        if (n <= 0) {
            return false;
        }
        at += n;
        size -= (size_t)n;
    }
    return true;
}

/* The certificate that a client has shown, as base64 of its DER form; "" where it has shown none. */
static bool shown_certificate(struct mosquitto *client, char *base64)
{
    unsigned char der[CERTIFICATE_MAX], *at = der;
    X509 *certificate = mosquitto_client_certificate(client);
    base64[0] = '\0';
    if (!certificate) {
        return true;
    }
    int size = i2d_X509(certificate, NULL);
    bool fits = size > 0 && size <= CERTIFICATE_MAX && i2d_X509(certificate, &at) == size;
    if (fits) {
        EVP_EncodeBlock((unsigned char *)base64, der, size);
    }
    X509_free(certificate);
    return fits;
}

/* Asks the hub about a CONNECT: "A", length, then six strings that end in NUL. The answer is a
 * length and the session's name; length 0 refuses. False also when the hub does not answer. */
static bool hub_admits(struct mosquitto *client, const char *username, const char *password,
                       char *session)
{
    char certificate[CERTIFICATE_MAX / 3 * 4 + 8];
    char request[QUESTION_MAX];
    uint32_t length;
    uint16_t answer;
    if (!shown_certificate(client, certificate)) {
        return false;
    }
    int n = snprintf(request + 5, sizeof request - 5, "%s%c%s%c%s%c%d%c%d%c%s",
                     mosquitto_client_id(client), 0, username ? username : "", 0,
                     password ? password : "", 0, mosquitto_client_clean_session(client), 0,
                     mosquitto_client_protocol_version(client), 0, certificate);
    if (n < 0 || (size_t)n + 5 >= sizeof request) {
        return false;
    }
    length = (uint32_t)n + 1;
    request[0] = 'A';
    memcpy(request + 1, &length, sizeof length);
    if (!hub_connect()) {
        return false;
    }
    bool answered = hub_send(request, length + 5) && hub_receive(&answer, sizeof answer)
                    && answer < SESSION_NAME_MAX && hub_receive(session, answer);
    memset(request, 0, sizeof request);
    if (!answered) {
        hub_close();  /* a late answer must not be taken for the next one */
        LOG_ERROR("the hub did not answer in %d s: connection refused", HUB_TIMEOUT_S);
        return false;
    }
    session[answer] = '\0';
    return answer > 0;
}


/* --- whose topic ----------------------------------------------------------------------------- */

/* A session's path: "devices/D", "devices/D/modules/M", "$dps/registrations", or "$hub" for the
 * hub's own link. NULL where the client is none that the hub admitted. */
static const char *session_path(struct mosquitto *client)
{
    const char *session = mosquitto_client_username(client);
    const char *space = session ? strchr(session, ' ') : NULL;
    return space ? space + 1 : NULL;
}

static bool begins(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_hub(const char *path)
{
    return strcmp(path, "$hub") == 0;
}

/* True when topic is path + suffix, or goes on with a slash after it. */
static bool below(const char *topic, const char *path, const char *suffix)
{
    size_t path_len = strlen(path), suffix_len = strlen(suffix);
    if (strncmp(topic, path, path_len) != 0 || strncmp(topic + path_len, suffix, suffix_len) != 0) {
        return false;
    }
    char next = topic[path_len + suffix_len];
    return next == '\0' || next == '/';
}

static bool may_publish(const char *path, const char *topic)
{
    if (begins(path, "devices/")) {
        return below(topic, path, "/messages/events") || begins(topic, "$iothub/twin/")
               || begins(topic, "$iothub/methods/res/");
    }
    return below(topic, path, "");
}

static bool may_subscribe(const char *path, const char *filter)
{
    if (!begins(path, "devices/")) {
        return is_hub(path) || strcmp(filter, "$dps/registrations/res/#") == 0;
    }
    return strcmp(filter, "$iothub/twin/res/#") == 0
           || strcmp(filter, "$iothub/twin/PATCH/properties/desired/#") == 0
           || strcmp(filter, "$iothub/methods/POST/#") == 0
           || (below(filter, path, "/messages/devicebound") && filter[strlen(filter) - 1] == '#')
           || (below(filter, path, "/inputs") && filter[strlen(filter) - 1] == '#');
}


/* --- what the hub orders --------------------------------------------------------------------- */

/* Payload of $hub/deliver: QoS as one byte, client id, NUL, topic, NUL, payload. */
static void deliver(const char *order, uint32_t size)
{
    const char *end = order + size;
    const char *client_id = order + 1;
    const char *topic = size ? memchr(client_id, '\0', size - 1) : NULL;
    const char *payload = topic ? memchr(topic + 1, '\0', (size_t)(end - topic - 1)) : NULL;
    if (payload) {
        payload++;
        mosquitto_broker_publish_copy(client_id, topic + 1, (int)(end - payload), payload,
                                      order[0], false, NULL);
    }
}

static void obey(const struct mosquitto_evt_message *message)
{
    if (strcmp(message->topic, "$hub/deliver") == 0) {
        deliver(message->payload, message->payloadlen);
    } else if (strcmp(message->topic, "$hub/kick") == 0 && message->payloadlen < SESSION_NAME_MAX) {
        char session[SESSION_NAME_MAX];
        memcpy(session, message->payload, message->payloadlen);
        session[message->payloadlen] = '\0';
        mosquitto_kick_client_by_username(session, true);
    }
}


/* --- the broker's events --------------------------------------------------------------------- */

static int on_basic_auth(int event, void *data, void *userdata)
{
    (void)event, (void)userdata;
    struct mosquitto_evt_basic_auth *auth = data;
    char session[SESSION_NAME_MAX];
    bool admitted = hub_admits(auth->client, auth->username, auth->password, session);
    /* No client keeps a user name of its own choice: it would pass for a session. */
    mosquitto_set_username(auth->client, admitted ? session : NULL);
    return admitted ? MOSQ_ERR_SUCCESS : MOSQ_ERR_AUTH;
}

static int on_acl_check(int event, void *data, void *userdata)
{
    (void)event, (void)userdata;
    struct mosquitto_evt_acl_check *check = data;
    const char *path = session_path(check->client);
    if (!path) {
        return MOSQ_ERR_ACL_DENIED;
    }
    switch (check->access) {
    case MOSQ_ACL_WRITE:
        /* Any error but "denied", which would acknowledge, makes the broker close the connection. */
        return may_publish(path, check->topic) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_AUTH;
    case MOSQ_ACL_SUBSCRIBE:
        if (!may_subscribe(path, check->topic)) {
            return MOSQ_ERR_ACL_DENIED;
        }
        if (!is_hub(path)) {
            spool_append(SUBSCRIBE, mosquitto_client_username(check->client), check->topic, NULL, 0,
                         check->qos, false);
        }
        return MOSQ_ERR_SUCCESS;
    case MOSQ_ACL_UNSUBSCRIBE:
        spool_append(UNSUBSCRIBE, mosquitto_client_username(check->client), check->topic, NULL, 0,
                     0, false);
        return MOSQ_ERR_SUCCESS;
    default:
        /* Devices get what the hub delivers, which is not asked here: never another's publish, and
         * after a reconnect nothing left over from before, as the hub delivers that again. */
        return is_hub(path) ? MOSQ_ERR_SUCCESS : MOSQ_ERR_ACL_DENIED;
    }
}

static int on_message(int event, void *data, void *userdata)
{
    (void)event, (void)userdata;
    struct mosquitto_evt_message *message = data;
    const char *path = session_path(message->client);
    if (message->payloadlen > PAYLOAD_MAX) {
        return MOSQ_ERR_PAYLOAD_SIZE;
    }
    if (is_hub(path)) {
        obey(message);
    } else if (!spool_append(PUBLISH, mosquitto_client_username(message->client), message->topic,
                             message->payload, message->payloadlen, message->qos,
                             message->retain)) {
        return MOSQ_ERR_UNKNOWN;
    }
    /* "Denied" here: the broker acknowledges the packet and does nothing more with it. */
    return MOSQ_ERR_ACL_DENIED;
}

static int on_disconnect(int event, void *data, void *userdata)
{
    (void)event, (void)userdata;
    struct mosquitto_evt_disconnect *gone = data;
    const char *path = session_path(gone->client);
    if (path && !is_hub(path)) {
        spool_append(DISCONNECT, mosquitto_client_username(gone->client), "", NULL, 0, 0, false);
    }
    return MOSQ_ERR_SUCCESS;
}

/* After each turn of the broker's loop: tell the hub once about all that was spooled in it. */
static int on_tick(int event, void *data, void *userdata)
{
    (void)event, (void)data, (void)userdata;
    char byte;
    if (!hub_connect() || recv(hub_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0) {
        LOG_ERROR("the hub is gone: the broker ends too");
        raise(SIGTERM);
    } else if (spooled) {
        spooled = send(hub_fd, "W", 1, MSG_DONTWAIT | MSG_NOSIGNAL) != 1;
    }
    return MOSQ_ERR_SUCCESS;
}


/* --- TLS ------------------------------------------------------------------------------------- */

/* A client may show a certificate, of any issuer: the hub judges it at CONNECT. mosquitto can be
 * told to ask for none, or to demand one, only; so each of its TLS contexts gets a callback that asks
 * for one as a handshake begins. */

static int take_any_certificate(int ok, X509_STORE_CTX *context)
{
    (void)ok, (void)context;
    return 1;
}

static int on_client_hello(SSL *ssl, int *alert, void *arg)
{
    (void)alert, (void)arg;
    SSL_set_verify(ssl, SSL_VERIFY_PEER, take_any_certificate);
    /* Without one, OpenSSL refuses to resume a session that may have a certificate. */
    SSL_set_session_id_context(ssl, (const unsigned char *)"vedette", 7);
    return SSL_CLIENT_HELLO_SUCCESS;
}

static void on_new_context(void *context, void *value, CRYPTO_EX_DATA *data, int index, long number,
                           void *arg)
{
    (void)value, (void)data, (void)index, (void)number, (void)arg;
    SSL_CTX_set_client_hello_cb(context, on_client_hello, NULL);
}


/* --- the plugin ------------------------------------------------------------------------------ */

int mosquitto_plugin_version(int count, const int *supported)
{
    for (int i = 0; i < count; i++) {
        if (supported[i] == MOSQ_PLUGIN_VERSION) {
            return MOSQ_PLUGIN_VERSION;
        }
    }
    return -1;
}

static const struct {
    int event;
    MOSQ_FUNC_generic_callback callback;
} CALLBACKS[] = {
    {MOSQ_EVT_BASIC_AUTH, on_basic_auth}, {MOSQ_EVT_ACL_CHECK, on_acl_check},
    {MOSQ_EVT_MESSAGE, on_message},       {MOSQ_EVT_DISCONNECT, on_disconnect},
    {MOSQ_EVT_TICK, on_tick},
};

int mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata,
                          struct mosquitto_opt *options, int count)
{
    (void)userdata;
    self = identifier;
    for (int i = 0; i < count; i++) {
        if (strcmp(options[i].key, "hub") == 0) {
            hub_socket = options[i].value;
        } else if (strcmp(options[i].key, "spool") == 0) {
            spool_dir = options[i].value;
        } else if (strcmp(options[i].key, "spool_number") == 0) {
            spool_number = strtoul(options[i].value, NULL, 10);
        }
    }
    if (!hub_socket || !spool_dir || !spool_open() || !hub_connect()) {
        LOG_ERROR("cannot start: needs plugin_opt_hub, plugin_opt_spool and a hub that listens");
        return MOSQ_ERR_UNKNOWN;
    }
    if (SSL_CTX_get_ex_new_index(0, NULL, on_new_context, NULL, NULL) < 0) {
        return MOSQ_ERR_NOMEM;
    }
    for (size_t i = 0; i < sizeof CALLBACKS / sizeof *CALLBACKS; i++) {
        int rc = mosquitto_callback_register(self, CALLBACKS[i].event, CALLBACKS[i].callback, NULL,
                                             NULL);
        if (rc != MOSQ_ERR_SUCCESS) {
            return rc;
        }
    }
    return MOSQ_ERR_SUCCESS;
}

int mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int count)
{
    (void)userdata, (void)options, (void)count;
    for (size_t i = 0; i < sizeof CALLBACKS / sizeof *CALLBACKS; i++) {
        mosquitto_callback_unregister(self, CALLBACKS[i].event, CALLBACKS[i].callback, NULL);
    }
    hub_close();
    close(spool_fd);
    return MOSQ_ERR_SUCCESS;
}
