//! `/1.0/certificates`.

use axum::Extension;
use axum::extract::{Path, State};
use condo::vps::record::name::Name;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::clients::{self, Certificate};
use super::{Caller, Identity, Reach, command};
use crate::operations::Plan;
use crate::reply::{Answer, Problem, Reply};
use crate::request::{Body, Params};
use crate::server::Server;

/// The body of a certificate to be trusted, and of a change.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wanted {
    name: Option<String>,
    #[serde(rename = "type")]
    kind: String,
    certificate: String,
    /// A token, by either name.
    password: String,
    trust_token: String,
    /// Whether a token is wanted.
    token: bool,
    restricted: Option<bool>,
    projects: Option<Vec<String>>,
}

fn object(fingerprint: &str, certificate: &Certificate) -> Value {
    json!({
        "fingerprint": fingerprint, "name": certificate.name, "type": "client", "certificate": certificate.pem(),
        "restricted": certificate.projects.is_some(), "projects": certificate.projects.as_deref().unwrap_or_default(),
    })
}

/// `GET /1.0/certificates`.
pub(crate) async fn list(State(server): State<Server>, params: Params) -> Answer {
    let all = server.read(clients::all).await?;
    let shown = all
        .iter()
        .map(|(fingerprint, certificate)| match params.recursion() {
            0 => json!(format!("/1.0/certificates/{fingerprint}")),
            _ => object(fingerprint, certificate),
        });
    Ok(Reply::Sync(shown.collect()))
}

async fn one(server: &Server, wanted: String) -> Result<(String, Certificate), Problem> {
    server
        .read(move |condo| Ok(clients::find(condo, &wanted)))
        .await?
}

/// `GET /1.0/certificates/FINGERPRINT`.
pub(crate) async fn get(State(server): State<Server>, Path(wanted): Path<String>) -> Answer {
    let (fingerprint, certificate) = one(&server, wanted).await?;
    let object = object(&fingerprint, &certificate);
    Ok(Reply::marked(&object, &object))
}

/// `POST /1.0/certificates`: whoever has a token is trusted from now on; whoever is trusted trusts others, or asks for a token.
pub(crate) async fn create(
    State(server): State<Server>,
    Extension(caller): Extension<Caller>,
    Extension(reach): Extension<Reach>,
    params: Params,
    Body(wanted): Body<Wanted>,
) -> Answer {
    let trusted = reach == Reach::All;
    wanted.refuse_others()?;
    if wanted.token {
        return match trusted {
            true => token(&server, &params, wanted).await,
            false => Err(Problem::forbidden("not authorized")),
        };
    }
    let der = match (&caller, wanted.certificate.as_str()) {
        (Caller::Remote(Some(der)), "") => der.clone(),
        (_, "") => return Err(Problem::value("certificate", "", "is missing")),
        (_, text) => clients::decode(text)?,
    };
    let secret = [&wanted.trust_token, &wanted.password]
        .into_iter()
        .find(|text| !text.is_empty())
        .cloned();
    let name = wanted.name.clone().unwrap_or_default();
    let projects = wanted.projects(None)?;
    let fingerprint = server
        .read(move |condo| {
            let known = clients::fingerprint(&der);
            if clients::reach(condo, &known)? != Reach::Nothing {
                return Ok(Err(Problem::conflict("Certificate already in trust store")));
            }
            let called = match secret {
                _ if trusted => Some((name.clone(), projects)),
                Some(secret) => clients::redeem(condo, &secret)?,
                None => None,
            };
            let Some((called, projects)) = called else {
                return Ok(Err(Problem::forbidden(
                    "not authorized: the token is wrong, or was used already",
                )));
            };
            let name = [name, called, known].into_iter().find(|name| !name.is_empty());
            Ok(match Certificate::new(&name.unwrap_or_default(), &der) {
                Ok(certificate) => {
                    let certificate = Certificate {
                        projects,
                        ..certificate
                    };
                    clients::trust(condo, &certificate, &der).map_err(Problem::from)
                }
                Err(problem) => Err(problem),
            })
        })
        .await??;
    let address = format!("/1.0/certificates/{fingerprint}");
    server
        .events
        .lifecycle(params.project(), "certificate-created", &address);
    Ok(Reply::Created(address))
}

impl Wanted {
    fn refuse_others(&self) -> Result<(), Problem> {
        if !["", "client"].contains(&self.kind.as_str()) {
            return Err(Problem::value("type", &self.kind, "is not supported: client is"));
        }
        Ok(())
    }

    /// The projects that the certificate is to be for; what is not said stays as it was `before`.
    fn projects(&self, before: Option<&[Name]>) -> Result<Option<Vec<Name>>, Problem> {
        let name = |text: &String| text.parse().map_err(|_| Problem::missing("Project", text));
        let said = self.projects.as_deref().map(|all| all.iter().map(name).collect());
        let said: Option<Vec<Name>> = said.transpose()?;
        Ok(match self.restricted.unwrap_or(before.is_some()) {
            true => Some(said.or_else(|| before.map(<[Name]>::to_vec)).unwrap_or_default()),
            false => None,
        })
    }
}

async fn token(server: &Server, params: &Params, wanted: Wanted) -> Answer {
    let projects = wanted.projects(None)?;
    let restricted = (projects.is_some(), projects.clone().unwrap_or_default());
    let name = wanted.name.unwrap_or_default();
    let (asked, port) = (name.clone(), server.port());
    let (issued, own) = server
        .read(move |condo| {
            let own = super::fingerprint(&Identity::of(condo)?.certificate);
            Ok((clients::issue(condo, &asked, projects)?, own))
        })
        .await?;
    let addresses = command::addresses(port);
    let metadata = json!({
        "secret": issued.secret, "fingerprint": own, "addresses": addresses, "expiresAt": issued.expires,
        "request": { "name": name, "type": "client", "token": true, "restricted": restricted.0, "projects": restricted.1 },
    });
    let plan = Plan {
        description: "Executing operation",
        project: params.project().to_owned(),
        class: Some("token"),
        metadata: metadata.as_object().cloned().unwrap_or_else(Map::new),
        ..Plan::default()
    };
    let operation = server.operations.begin(plan, std::future::ready(Ok(())))?;
    Ok(Reply::begun(&operation))
}

/// `PUT /1.0/certificates/FINGERPRINT`.
pub(crate) async fn put(server: State<Server>, path: Path<String>, body: Body<Wanted>) -> Answer {
    patch(server, path, body).await
}

/// `PATCH /1.0/certificates/FINGERPRINT`: another name, other projects.
pub(crate) async fn patch(
    State(server): State<Server>,
    Path(fingerprint): Path<String>,
    Body(wanted): Body<Wanted>,
) -> Answer {
    wanted.refuse_others()?;
    let (fingerprint, certificate) = one(&server, fingerprint).await?;
    let projects = wanted.projects(certificate.projects.as_deref())?;
    let name = wanted.name.unwrap_or(certificate.name.clone());
    let certificate = Certificate {
        projects,
        ..Certificate::new(&name, &clients::decode(&certificate.der)?)?
    };
    server
        .read(move |condo| clients::change(condo, &fingerprint, &certificate))
        .await?;
    Ok(Reply::empty())
}

/// `DELETE /1.0/certificates/FINGERPRINT`.
pub(crate) async fn delete(
    State(server): State<Server>,
    Path(wanted): Path<String>,
    params: Params,
) -> Answer {
    let (fingerprint, _) = one(&server, wanted).await?;
    let address = format!("/1.0/certificates/{fingerprint}");
    server
        .read(move |condo| clients::distrust(condo, &fingerprint))
        .await?;
    server
        .events
        .lifecycle(params.project(), "certificate-deleted", &address);
    Ok(Reply::empty())
}
