/* Plays librkllmrt.so in each layout: cc -shared -fPIC -DGROUP=110|120|121|130 -DVERSION='"1.3.0"'.

Declarations of our own, after the vendor's headers. $DOUBLE_SCRIPT is a file: each line is one
answer's ids, the next run takes the next line, the last one for ever; an id written ~id is half a
character (state WAITING), a word after | is an id's text. Where $DOUBLE_ECHO names a file, an
answer is the prompt's last message instead: its first line has the ids of a message's two marks,
and each further line the bytes of an id in hex, so that half characters are found here.
$DOUBLE_LOG gets a line a call. $DOUBLE_TOKEN_MS is the time of a token. $DOUBLE_FAULT, or the word
in the file that $DOUBLE_FAULTS names: hang-load, refuse, error, code, deaf (ignores an abort for
1 s), leak (what a stop cut off opens the next run), crash (at the second token), silent. */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { const char *path; int32_t context, max_new, top_k;
#if GROUP >= 120
  int32_t n_keep;
#endif
  float top_p, temperature, repeat, frequency, presence; int32_t mirostat; float tau, eta;
  bool skip_special;
#if GROUP >= 130
  bool ignore_eos;
#endif
  bool is_async;
#if GROUP < 130
  const char *image[3];
#endif
#if GROUP >= 120
  struct { int32_t domain; int8_t flash, cpus; uint32_t mask; uint8_t rest[108]; } extend;
#else
  struct { int32_t domain; uint8_t rest[112]; } extend;
#endif
} Param;

typedef struct {
#if GROUP >= 121
  const char *role; bool thinking;
#endif
  int type;
  union { const char *prompt; struct { int32_t *ids; size_t count; } tokens;
#if GROUP >= 130
    char rest[144];
#elif GROUP >= 121
    char rest[48];
#else
    char rest[24];
#endif
  } u;
} Input;

typedef struct { int32_t top_k; float top_p, temperature, repeat, frequency, presence;
                 int32_t mirostat; float tau, eta; } Sampling;
typedef struct { int mode; void *lora, *cache;
#if GROUP >= 130
  Sampling *sampling;
#endif
#if GROUP >= 120
  int keep;
#endif
#if GROUP >= 130
  int32_t max_new;
#endif
} Infer;

typedef struct { const char *text; int32_t id; struct { void *v; int a, b; } hidden;
#if GROUP >= 120
  struct { void *v; int a, b; } logits;
#endif
#if GROUP >= 121
  struct { float a; int b; float c; int d; float e; } perf;
#endif
} Result;

#if GROUP >= 121
typedef int (*Callback)(Result *, void *, int);
#else
typedef void (*Callback)(Result *, void *, int);
#endif
typedef struct { Callback result; void *userdata; void *rest[4]; } Callbacks;
typedef struct { int id, half; char text[64]; } Said;
typedef struct { Callback callback; Param param; volatile int stop, running; int cached, line, count, at; Said *said; } Handle;

#if GROUP == 110
_Static_assert(sizeof(Param) == 200 && sizeof(Input) == 32 && sizeof(Infer) == 24 && sizeof(Result) == 32, "1.1");
#elif GROUP == 120
_Static_assert(sizeof(Param) == 208 && sizeof(Input) == 32 && sizeof(Infer) == 32 && sizeof(Result) == 48, "1.2.0");
#elif GROUP == 121
_Static_assert(sizeof(Param) == 208 && sizeof(Input) == 64 && sizeof(Infer) == 32 && sizeof(Result) == 72, "1.2.1");
#else
_Static_assert(sizeof(Param) == 184 && sizeof(Input) == 160 && sizeof(Infer) == 40 && sizeof(Result) == 72 && sizeof(Callbacks) == 48, "1.3");
#endif

#ifdef VERSION
const char *double_version = "I rkllm: rkllm-runtime version: " VERSION ", rknpu driver version: 0.9.8";
#endif
static int is(const char *fault) {
  const char *f = getenv("DOUBLE_FAULT"), *path = getenv("DOUBLE_FAULTS"); char word[32] = "";
  FILE *file = path ? fopen(path, "r") : NULL;
  if (file) { if (fscanf(file, "%31s", word) == 1) f = word; fclose(file); }
  return f && !strcmp(f, fault);
}
static long number(const char *name, long other) { const char *v = getenv(name); return v ? atol(v) : other; }
static void note(const char *text) {
  const char *path = getenv("DOUBLE_LOG"); FILE *f = path ? fopen(path, "a") : NULL;
  if (f) { fprintf(f, "%s\n", text); fclose(f); }
}

Param rkllm_createDefaultParam(void) {
  Param p; memset(&p, 0, sizeof p);
  p.context = 512; p.max_new = 256; p.top_k = 40; p.top_p = 0.9f; p.temperature = 0.8f; p.repeat = 1.1f; p.tau = 5; p.eta = 0.1f;
#if GROUP >= 120
  p.n_keep = -1; p.extend.cpus = 4; p.extend.mask = 0xf0;
#endif
  return p;
}

#define IDS (1 << 18)
static struct { int start, end, size; char *bytes[IDS]; } vocabulary;
static void learn(const char *path) {
  FILE *f = vocabulary.size ? NULL : fopen(path, "r"); char line[1024];
  if (!f || fscanf(f, "%d %d ", &vocabulary.start, &vocabulary.end) != 2) return;
  for (vocabulary.size = 0; vocabulary.size < IDS && fgets(line, sizeof line, f); vocabulary.size++) {
    char *bytes = vocabulary.bytes[vocabulary.size] = calloc(1, strlen(line) / 2 + 1); unsigned byte;
    for (int n = 0; sscanf(line + 2 * n, "%2x", &byte) == 1; n++) bytes[n] = (char)byte;
  }
  fclose(f);
}

#if GROUP >= 130
int rkllm_init(Handle **handle, Param *p, Callbacks *c) { Callback callback = c->result;
#else
int rkllm_init(Handle **handle, Param *p, Callback callback) {
#endif
  char line[600], magic[8] = {0}; FILE *f = fopen(p->path, "rb");
  for (long waited = 0; waited < number("DOUBLE_LOAD_MS", 1000) && is("hang-load"); waited++) usleep(1000);
  if (!f) return -1;
  if (fread(magic, 1, 5, f) != 5) magic[0] = 0;
  fclose(f);
  if (is("refuse") || strncmp(magic, "RKLLM", 5)) return -1;
  *handle = calloc(1, sizeof(Handle)); (*handle)->said = calloc(1 << 14, sizeof(Said));
  if (getenv("DOUBLE_ECHO")) learn(getenv("DOUBLE_ECHO"));
  (*handle)->callback = callback; (*handle)->param = *p;
  snprintf(line, sizeof line, "init context %d max %d top_k %d temperature %.2f skip %d"
#if GROUP >= 120
    " cpus %d mask %x", p->context, p->max_new, p->top_k, p->temperature, p->skip_special, p->extend.cpus, p->extend.mask);
#else
    , p->context, p->max_new, p->top_k, p->temperature, p->skip_special);
#endif
  note(line); return 0;
}

static void scripted(Handle *h) {
  const char *path = getenv("DOUBLE_SCRIPT"); FILE *f = path ? fopen(path, "r") : NULL; static char line[1 << 16];
  strcpy(line, "5 6 7");
  for (int n = 0; f && n <= h->line; n++) if (!fgets(line, sizeof line, f)) break;
  h->line++; if (f) fclose(f);
  line[strcspn(line, "\n")] = 0;
  for (char *word = strtok(line, " "); word; word = strtok(NULL, " ")) {
    Said *s = &h->said[h->count++]; char *bar = strchr(word, '|');
    s->half = *word == '~'; s->id = atoi(word + s->half); snprintf(s->text, sizeof s->text, "%s", bar ? bar + 1 : "");
  }
}

static int is_whole(const char *text) {  /* whether UTF-8 ends with a whole character */
  size_t size = strlen(text), back = 0;
  while (back < size && ((unsigned char)text[size - 1 - back] & 0xc0) == 0x80) back++;
  if (back >= size) return size == 0;
  unsigned char lead = text[size - 1 - back];
  return back == (lead >= 0xf0 ? 3u : lead >= 0xe0 ? 2u : lead >= 0xc0 ? 1u : 0u);
}

static void echoed(Handle *h, const int32_t *ids, int count) {
  int end = count - 1, begin; char text[64] = "";
  while (end >= 0 && ids[end] != vocabulary.end) end--;
  for (begin = end; begin >= 0 && ids[begin] != vocabulary.start; begin--);
  if (begin < 0) begin = 0;
  while (begin < end && !strchr(vocabulary.bytes[ids[begin++]], '\n'));  /* the role's line */
  for (; begin < end; begin++) {
    Said *s = &h->said[h->count++];
    s->id = ids[begin]; strncat(text, vocabulary.bytes[s->id], sizeof text - strlen(text) - 1);
    s->half = !is_whole(text); strcpy(s->text, s->half ? "" : text);
    if (!s->half) *text = 0;
  }
}

static int say(Handle *h, const char *text, int id, int state) {
  Result r; memset(&r, 0, sizeof r); r.text = text; r.id = id;
#if GROUP >= 121
  return h->callback(&r, NULL, state);
#else
  h->callback(&r, NULL, state); return 0;
#endif
}

int rkllm_run(Handle *h, Input *in, Infer *infer, void *user) {
  char line[600]; int max = h->param.max_new, made = 0, keep = 0;
#if GROUP >= 120
  keep = infer->keep;
#endif
#if GROUP >= 130
  if (infer->max_new > 0) max = infer->max_new;
  snprintf(line, sizeof line, "run ids %zu first %d keep %d cached %d max %d top_k %d top_p %.2f temperature %.2f repeat %.2f", in->u.tokens.count,
    in->u.tokens.ids[0], keep, h->cached, max, infer->sampling->top_k, infer->sampling->top_p, infer->sampling->temperature, infer->sampling->repeat);
#else
  snprintf(line, sizeof line, "run ids %zu first %d keep %d cached %d max %d", in->u.tokens.count, in->u.tokens.ids[0], keep, h->cached, max);
#endif
  note(line);
  if (in->type != 1) return -2;
  if (is("code")) return -3;
  h->stop = 0; h->running = 1;
  if (!keep) h->cached = 0;
  h->cached += (int)in->u.tokens.count;
  if (is("silent")) usleep(1000 * number("DOUBLE_LOAD_MS", 1000));
  if (h->at >= h->count) {  /* else what a stop left opens this run */
    h->at = h->count = 0;
    if (vocabulary.size) echoed(h, in->u.tokens.ids, (int)in->u.tokens.count); else scripted(h);
  }
  for (; h->at < h->count && made < max; h->at++) {
    Said *s = &h->said[h->at];
    for (long waited = 0; waited < number("DOUBLE_TOKEN_MS", 0); waited++) { usleep(1000); if (h->stop && !is("deaf")) break; }
    if (h->stop && !is("deaf")) break;
    if (made) h->cached++;  /* a token is in the cache once the next is made of it */
    made++;
    if (is("error") && made == 2) { say(h, NULL, -1, 3); h->at = h->count; h->running = 0; return 0; }
    if (is("crash") && made == 2) { volatile int *p = NULL; *p = 1; }
    if (say(h, s->text, s->id, s->half)) break;
  }
  if (!is("leak")) h->at = h->count;
  h->running = 0; note("end");
  if (!h->stop) say(h, NULL, -1, 2);
  return 0;
}

int rkllm_abort(Handle *h) { note("abort"); h->stop = 1; return 0; }
int rkllm_is_running(Handle *h) { return GROUP >= 130 ? h->running : !h->running; }
int rkllm_destroy(Handle *h) { note("destroy"); free(h->said); free(h); return 0; }
#if GROUP == 120
int rkllm_clear_kv_cache(Handle *h, int keep) { note("clear"); h->cached = 0; h->at = h->count; return 0; }
#elif GROUP > 120
int rkllm_clear_kv_cache(Handle *h, int keep, int *start, int *end) { note("clear"); if (start || end) return -1; h->cached = 0; h->at = h->count; return 0; }
int rkllm_get_kv_cache_size(Handle *h, int *sizes) { sizes[0] = h->cached; return 0; }
int rkllm_set_function_tools(Handle *h, const char *a, const char *b, const char *c) { return 0; }
#endif

/* What else an rkllama wants to be there. */
int rkllm_set_chat_template(Handle *h, const char *a, const char *b, const char *c) { return 0; }
int rkllm_load_lora(Handle *h, void *lora) { return 0; }
int rkllm_load_prompt_cache(Handle *h, const char *path) { return 0; }
int rkllm_release_prompt_cache(Handle *h) { return 0; }
int rkllm_set_cross_attn_params(Handle *h, void *params) { return 0; }
int rkllm_run_async(Handle *h, Input *in, Infer *infer, void *user) { return rkllm_run(h, in, infer, user); }
